"""`opensora download`: the only command that uses the network."""

from opensora.weights.hub import DownloadOptions

OPTIONS = DownloadOptions
POSITIONAL = "repository"


def run(options: DownloadOptions) -> None:
    from opensora.weights.hub import download

    download(options)
