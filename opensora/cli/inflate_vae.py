"""`opensora inflate-vae --src A --target B`: initialise a video autoencoder from an image autoencoder."""

from dataclasses import dataclass

POSITIONAL = None


@dataclass(frozen=True, kw_only=True)
class InflateOptions:
    """Options of `opensora inflate-vae`."""

    src: str
    """Image autoencoder, such as sd-vae-ft-mse: its folder, or its file (.safetensors, .bin, .pt, .ckpt)."""
    target: str
    """Video autoencoder to write, for `opensora train-vae --load_from_checkpoint`: a folder, or a file
    (.safetensors, .ckpt)."""
    model_config: str | None = None
    """config.json of the video autoencoder, or its folder; default: the released one's."""


OPTIONS = InflateOptions


def run(options: InflateOptions) -> None:
    from opensora.models.causal_vae.inflate import inflate_vae

    inflate_vae(options.src, options.target, options.model_config)
