"""Cost of the autoencoder: operations, and memory whole, in chunks or in tiles. Does not import MindSpore."""

from math import prod

from opensora.models.causal_vae.config import CausalVAEConfig, Layer, decoder_layers, encoder_layers
from opensora.models.causal_vae.frames import CHUNK_BYTES
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.models.causal_vae.tiling import Tiling
from opensora.models.flops import attention_scores, linear
from opensora.models.geometry import FLOAT, Size

# Measured on a CPU: float32 values per channel and pixel of the video, for (decoding, encoding). MindSpore's
# compiled blocks each keep their working memory.
WHOLE = {"mindspore": (30, 15), "openvino": (7, 4)}
# Chunks alive at once: the window of a convolution, its source, its taps and their sum.
CHUNKS = 12


def encode_flops(config: CausalVAEConfig, size: Size, tiling: Tiling | None = None) -> int:
    """Operations of encoding one video of (frames, height, width) pixels, whole or tile by tile."""
    tiles = [size] if tiling is None else tiling.tiles(size)
    return sum(_chain_flops(encoder_layers(config), tile) for tile in tiles)


def decode_flops(config: CausalVAEConfig, latent_size: Size, tiling: Tiling | None = None) -> int:
    """Operations of decoding latents of (frames, height, width). tiling: in pixels."""
    tiles = [latent_size] if tiling is None else tiling.in_latents(config.strides).tiles(latent_size)
    return sum(_chain_flops(decoder_layers(config), tile) for tile in tiles)


def decode_bytes(config: CausalVAEConfig, latent_size: Size, policy: VAEPolicy, batch: int = 1) -> int:
    """Bytes of activations for decoding latents of (frames, height, width). Encoding takes less."""
    tiles = None if policy.tiling is None else policy.tiling.in_latents(config.strides)
    if tiles is not None and tiles.splits(latent_size):
        pixels = config.strides.pixel_size(tiles.first(latent_size))
        return whole_bytes(config, pixels, batch, engine=policy.engine)
    whole = whole_bytes(config, config.strides.pixel_size(latent_size), batch, engine=policy.engine)
    if not policy.in_chunks(whole):
        return whole
    stored, working = chunked_bytes(config, latent_size, batch)
    return working + min(stored, policy.storage)


def whole_bytes(
    config: CausalVAEConfig, size: Size, batch: int = 1, decode: bool = True, *, engine: str
) -> int:
    """Bytes of activations for a video of (frames, height, width) pixels in one piece."""
    return WHOLE[engine][0 if decode else 1] * config.hidden_size * batch * prod(size) * FLOAT


def training_bytes(config: CausalVAEConfig, size: Size) -> int:
    """Bytes of a clip's activations in a training step, at least: the inputs of all layers.

    size: (frames, height, width) of the clip.
    """
    total = 0
    for layer in (*encoder_layers(config), *decoder_layers(config)):
        total += FLOAT * layer.channels_in * prod(size)
        size = layer.kind.resize(size)
    return total


def chunked_bytes(
    config: CausalVAEConfig, size: Size, batch: int = 1, decode: bool = True
) -> tuple[int, int]:
    """Upper bounds of the bytes of (stored activations, chunks at work). The former may lie in a file.

    size: (frames, height, width) of the latents for a decode, of the video for an encode.
    """
    stored, largest = 0, CHUNK_BYTES
    previous: Layer | None = None
    for layer in decoder_layers(config) if decode else encoder_layers(config):
        size_out = layer.kind.resize(size)
        before, after = (
            FLOAT * batch * layer.channels_in * prod(size),
            FLOAT * batch * layer.channels_out * prod(size_out),
        )
        stored = max(stored, _stored_bytes(layer, previous, before, after))
        largest = max(largest, before // size[0], after // size_out[0])
        size, previous = size_out, layer
    return stored, CHUNKS * largest


def _stored_bytes(layer: Layer, previous: Layer | None, before: int, after: int) -> int:
    """Bytes that chunked.py stores for a layer: its input and output, and the middle of a residual layer."""
    if not layer.kind.stores:
        return 0
    if layer.kind.form == "residual" and layer.channels_in != layer.channels_out:
        if layer.channels_in > layer.channels_out and previous is not None:
            before //= (
                previous.kind.up.space**2
            )  # an upsampling before it is computed twice, only its input is stored
        return 2 * after + before
    return before + after


def _chain_flops(layers: list[Layer], size: Size) -> int:
    total = 0
    for layer in layers:
        size = layer.kind.resize(size)
        total += layer_flops(layer, size)
    return total


def layer_flops(layer: Layer, size: Size) -> int:
    """Operations of a layer whose output has this size."""
    frames, height, width = size
    positions, kind = frames * height * width, layer.kind
    channels_in, channels = layer.channels_in, layer.channels_out
    if kind.form in ("norm", "mean"):
        return 0
    if kind.form == "attention":
        return linear(positions, 4 * channels, channels) + attention_scores(
            positions, height * width, channels
        )
    # With one frame every tap sees the same pixels.
    kernel = (kind.taps if frames > 1 else 1) * kind.plane
    if kind.form == "convolution":
        return linear(positions, kernel * channels_in, channels)
    shortcut = channels_in if channels_in != channels else 0
    return linear(positions, kernel * (channels_in + channels) + shortcut, channels)
