"""`opensora encode-latents`: what the autoencoder makes of a data set, computed once for training."""

from opensora.data.options import EncodeLatentsOptions

OPTIONS = EncodeLatentsOptions
POSITIONAL = None


def run(options: EncodeLatentsOptions) -> None:
    from opensora.data.encode import encode_latents

    encode_latents(options)
