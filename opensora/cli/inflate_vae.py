"""`opensora inflate-vae --src vae_2d --target vae`: an autoencoder of images becomes the start of one of videos."""

from dataclasses import dataclass

POSITIONAL = None


@dataclass(frozen=True, kw_only=True)
class InflateOptions:
    """Options of `opensora inflate-vae`."""

    src: str
    """Image autoencoder, such as sd-vae-ft-mse: its folder, or its file (.safetensors, .bin, .pt, .ckpt)."""
    target: str
    """Video autoencoder that is made: a folder, or a file (.safetensors, .ckpt). `opensora train-vae --load_from_checkpoint` takes it."""
    model_config: str | None = None
    """Folder whose config.json, or .json file that, describes the video autoencoder; default: the published one's."""


OPTIONS = InflateOptions


def run(options: InflateOptions) -> None:
    from opensora.train.vae.setup import inflate_vae

    inflate_vae(options.src, options.target, options.model_config)
