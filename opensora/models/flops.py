"""Arithmetic of the networks: floating-point operations of matrix products and convolutions, a multiply-add counted as two.

Norms, activations and softmax are left out: they are a few per mille of the operations, if not of the time. Loads without MindSpore.
"""

from typing import NamedTuple

from opensora.models.causal_vae.config import CausalVAEConfig, Layer, decoder_layers, encoder_layers
from opensora.models.latte.config import TIMESTEP_CHANNELS, LatteConfig
from opensora.models.t5.config import T5Config

Size = tuple[int, int, int]
"""Frames, height, width."""

STEP_FORWARDS = 4
"""Forwards of the transformer that a training step costs: one, as many operations for each of two kinds of gradients, and the one that the
backward pass repeats, but for layers that keep what they computed."""

# Weights per pair of channels. The first is the tap in time, of which a single frame needs one only.
KERNELS = {
    "Conv2d": (1, 9),
    "CausalConv3d": (3, 9),
    "quant_conv": (1, 1),
    "ResnetBlock2D": (1, 9),
    "ResnetBlock3D": (3, 9),
}
KERNELS |= {"Downsample": (1, 9), "SpatialDownsample2x": (1, 9), "SpatialUpsample2x": (1, 9)}
KERNELS |= {"TimeDownsampleRes2x": (3, 9), "TimeUpsampleRes2x": (3, 9)}


def latte_forward(
    config: LatteConfig,
    latent_size: Size,
    *,
    batch: int = 1,
    text_length: int | None = None,
    num_images: int = 0,
    temporal: bool = True,
    texts: int | None = None,
    ranks: int = 1,
) -> int:
    """Operations of one forward of LatteT2V on latents (batch, 4, T + num_images, h, w); latent_size is (T, h, w).

    text_length: tokens of a text, by default the model's longest. texts: for how many texts keys and values are computed, by
    default one for the video and each image. While sampling it is 0, since they are kept; the PyTorch original computes
    them for every frame, T + num_images. ranks: how many share the frames and images; the operations are then those of the one that has
    most.
    """
    tokens, images = _tokens(config, latent_size, text_length, num_images, ranks), -(-num_images // ranks)
    texts = 1 + images if texts is None else texts
    width, patch = config.width, config.patch_size**2
    total = linear(tokens.here, config.in_channels * patch, width) + linear(
        tokens.here, width, config.out_channels * patch
    )
    total += linear(1, TIMESTEP_CHANNELS + 7 * width, width)
    if texts:
        total += (1 + images) * linear(tokens.text, config.caption_channels + width, width)
        total += config.num_layers * texts * linear(tokens.text, 2 * width, width)
    return batch * (
        total + sum(_layer_of_latte(config, layer, tokens, temporal) for layer in range(config.num_layers))
    )


def latte_step(
    config: LatteConfig,
    latent_size: Size,
    *,
    batch: int = 1,
    text_length: int | None = None,
    num_images: int = 0,
    temporal: bool = True,
    ranks: int = 1,
    num_no_recompute: int = 0,
) -> int:
    """Operations of a training step, forward and backward, with the arguments of `latte_forward`.

    num_no_recompute: how many of the layers, the last ones, keep what they compute.
    """
    forward = latte_forward(
        config,
        latent_size,
        batch=batch,
        text_length=text_length,
        num_images=num_images,
        temporal=temporal,
        ranks=ranks,
    )
    tokens = _tokens(config, latent_size, text_length, num_images, ranks)
    keeping = range(max(0, config.num_layers - num_no_recompute), config.num_layers)
    return STEP_FORWARDS * forward - batch * sum(
        _layer_of_latte(config, layer, tokens, temporal) for layer in keeping
    )


class _Tokens(NamedTuple):
    """Of the rank that has most: blocks that join frames take patches by themselves, all others frames."""

    here: int
    """Patches of all its frames and images."""
    patches: int
    """Of a frame."""
    moving: int
    """All frames of its patches."""
    frames: int
    """Of the whole video."""
    text: int
    """Of a text."""


def _tokens(
    config: LatteConfig, latent_size: Size, text_length: int | None, num_images: int, ranks: int
) -> _Tokens:
    frames, patches = latent_size[0], latent_size[1] * latent_size[2] // config.patch_size**2
    length = config.model_max_length if text_length is None else text_length
    return _Tokens(
        (-(-frames // ranks) - (-num_images // ranks)) * patches,
        patches,
        frames * -(-patches // ranks),
        frames,
        length,
    )


def _layer_of_latte(config: LatteConfig, layer: int, tokens: _Tokens, temporal: bool) -> int:
    """A spatial and a temporal block, without the text's keys and values."""
    width = config.width
    factor = config.compress_kv_factor if config.compresses(layer) else 1
    total = _attention(tokens.here, tokens.here // factor**2, tokens.patches // factor**2, width)
    total += linear(tokens.here, 2 * width, width) + _scores(
        tokens.here, tokens.text, width
    )  # queries and output of the text's attention
    total += linear(tokens.here, 8 * width, width)
    if temporal:
        total += _attention(tokens.moving, tokens.moving // factor, tokens.frames // factor, width) + linear(
            tokens.moving, 8 * width, width
        )
    return total


def vae_encode(config: CausalVAEConfig, size: Size) -> int:
    """Operations of encoding one video of (frames, height, width) pixels as a whole, without tiles."""
    return _chain(encoder_layers(config), size)


def vae_decode(config: CausalVAEConfig, latent_size: Size) -> int:
    """Operations of decoding latents of (frames, height, width) as a whole, without tiles."""
    return _chain(decoder_layers(config), latent_size)


def t5_encode(config: T5Config, length: int) -> int:
    """Operations of encoding one text of `length` tokens, padding included."""
    inner = config.num_heads * config.d_kv
    layer = (
        linear(length, 4 * inner, config.d_model)
        + _scores(length, length, inner)
        + linear(length, 3 * config.d_ff, config.d_model)
    )
    return config.num_layers * layer


def linear(rows: int, inputs: int, outputs: int) -> int:
    return 2 * rows * inputs * outputs


def _scores(queries: int, keys: int, width: int) -> int:
    """Scores, and the sum of the values that they weight."""
    return 4 * queries * keys * width


def _attention(tokens: int, sources: int, keys: int, width: int) -> int:
    """Self-attention of tokens that see `keys` each, of `sources` for which keys and values are computed."""
    return linear(tokens, 2 * width, width) + linear(sources, 2 * width, width) + _scores(tokens, keys, width)


def _chain(layers: list[Layer], size: Size) -> int:
    total = 0
    for layer in layers:
        size = resized(layer.kind, size)
        total += _layer(layer, size)
    return total


def _layer(layer: Layer, size: Size) -> int:
    """Operations of a block whose output has this size."""
    frames, height, width = size
    positions = frames * height * width
    channels_in, channels = layer.channels_in, layer.channels_out
    if layer.kind.startswith("Attn"):
        return linear(positions, 4 * channels, channels) + _scores(positions, height * width, channels)
    if layer.kind not in KERNELS:
        return 0
    taps, plane = KERNELS[layer.kind]
    kernel = (taps if frames > 1 else 1) * plane
    if not layer.kind.startswith("Resnet"):
        return linear(positions, kernel * channels_in, channels)
    shortcut = channels_in if channels_in != channels else 0
    return linear(positions, kernel * (channels_in + channels) + shortcut, channels)


def resized(kind: str, size: Size) -> Size:
    """The size of a block's output."""
    frames, height, width = size
    if kind in ("Downsample", "SpatialDownsample2x"):
        return frames, height // 2, width // 2
    if kind == "SpatialUpsample2x":
        return frames, 2 * height, 2 * width
    if kind.startswith("TimeDownsample"):
        return (frames + 1) // 2, height, width
    return (2 * frames - 1 if kind.startswith("TimeUpsample") else frames), height, width
