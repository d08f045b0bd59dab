"""`opensora export`: make a model folder of what runs have trained."""

from opensora.train.options import ExportOptions

OPTIONS = ExportOptions
POSITIONAL = None


def run(options: ExportOptions) -> None:
    from opensora.train.export import export

    export(options)
