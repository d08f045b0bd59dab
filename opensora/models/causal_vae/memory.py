"""What encoding and decoding take in memory, whole or in chunks, and which way to take. Loads without MindSpore."""

from math import prod

from opensora.models.causal_vae.config import CausalVAEConfig, Layer, decoder_layers, encoder_layers
from opensora.models.causal_vae.frames import CHUNK_BYTES, FLOAT
from opensora.models.flops import Size, resized

WAYS = ("auto", "exact", "chunked")
# Measured on a CPU, where every compiled block keeps its working memory: in units of channels * frames * height * width of full size.
WHOLE_DECODE, WHOLE_ENCODE = 30, 15
# Chunks that are alive at once: the window of a convolution, what it was made from, its taps and their sum.
CHUNKS = 12
# Of the free memory, what activations may take before they are spilled to a file.
SHARE = 0.6


def whole(config: CausalVAEConfig, size: Size, batch: int = 1, decode: bool = True) -> int:
    """Bytes of activations for a video of this size (frames, height, width in pixels) in one piece."""
    return (WHOLE_DECODE if decode else WHOLE_ENCODE) * config.hidden_size * batch * prod(size) * FLOAT


def chunked(config: CausalVAEConfig, size: Size, batch: int = 1, decode: bool = True) -> tuple[int, int]:
    """Bytes of (what is stored between the layers, what the chunks take). The first may be in a file; an upper bound.

    size: of the latents for a decode, of the video for an encode.
    """
    stored, largest, previous = 0, CHUNK_BYTES, ""
    for layer in decoder_layers(config) if decode else encoder_layers(config):
        before, after = (
            _bytes(size, layer.channels_in, batch),
            _bytes(resized(layer.kind, size), layer.channels_out, batch),
        )
        stored = max(stored, _stored(layer, previous, before, after))
        largest = max(largest, before // size[0], after // resized(layer.kind, size)[0])
        size, previous = resized(layer.kind, size), layer.kind
    return stored, CHUNKS * largest


def _bytes(size: Size, channels: int, batch: int) -> int:
    return FLOAT * batch * channels * prod(size)


def _stored(layer: Layer, previous: str, before: int, after: int) -> int:
    """A block's input and result, and between the two halves of a residual block its middle; see causal_vae_chunked.py."""
    if layer.kind == "ResnetBlock3D":
        if layer.channels_in == layer.channels_out:
            return before + after
        computed_twice = layer.channels_in > layer.channels_out and previous == "SpatialUpsample2x"
        return 2 * after + (before // 4 if computed_twice else before)
    if layer.kind.startswith(("Time", "Attn")):
        return before + after
    return 0


def choose(way: str, device: str) -> str:
    """ "exact" (whole) or "chunked" for one of WAYS. On a CPU chunks take less memory;
    another device would wait for its host."""
    if way != "auto":
        return way
    return "chunked" if device == "CPU" else "exact"
