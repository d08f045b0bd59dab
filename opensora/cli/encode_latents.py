"""`opensora encode-latents`: what the autoencoder makes of a data set, computed once for training."""

from opensora.train.options import EncodeLatentsOptions

OPTIONS = EncodeLatentsOptions
POSITIONAL = None


def run(options: EncodeLatentsOptions) -> None:
    from opensora.train.start import encode_latents

    encode_latents(options)
