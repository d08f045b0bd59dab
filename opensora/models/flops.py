"""Arithmetic of the networks: floating-point operations of matrix products and convolutions, a multiply-add counted as two.

Norms, activations and softmax are left out: they are a few per mille of the operations, if not of the time. Loads without MindSpore.
"""

from opensora.models.causal_vae_config import CausalVAEConfig, Layer, decoder_layers, encoder_layers
from opensora.models.latte_config import TIMESTEP_CHANNELS, LatteConfig
from opensora.models.t5_config import T5Config

Size = tuple[int, int, int]
"""Frames, height, width."""

STEP_FORWARDS = 4
"""Forwards of the transformer that a training step costs: one, as many operations for each of two kinds of gradients, and the one that the
backward pass repeats."""

# Weights per pair of channels. The first is the tap in time, of which a single frame needs one only.
KERNELS = {"Conv2d": (1, 9), "CausalConv3d": (3, 9), "quant_conv": (1, 1), "ResnetBlock2D": (1, 9), "ResnetBlock3D": (3, 9)}
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
    length = config.model_max_length if text_length is None else text_length
    frames, patches = latent_size[0], latent_size[1] * latent_size[2] // config.patch_size**2
    images = -(-num_images // ranks)
    texts = 1 + images if texts is None else texts
    width = config.width
    # All blocks but the temporal ones take frames by themselves; those take patches by themselves.
    tokens, moving = (-(-frames // ranks) + images) * patches, frames * -(-patches // ranks)
    patch = config.patch_size**2
    total = linear(tokens, config.in_channels * patch, width) + linear(tokens, width, config.out_channels * patch)
    total += linear(1, TIMESTEP_CHANNELS + 7 * width, width)
    if texts:
        total += (1 + images) * linear(length, config.caption_channels + width, width)
    for layer in range(config.num_layers):
        kept = config.compress_kv_factor if config.compresses(layer) else 1
        total += _attention(tokens, tokens // kept**2, patches // kept**2, width)
        total += linear(tokens, 2 * width, width) + _scores(tokens, length, width)  # queries and output; keys of the text follow
        total += texts * linear(length, 2 * width, width)
        total += linear(tokens, 8 * width, width)
        if temporal:
            total += _attention(moving, moving // kept, frames // kept, width) + linear(moving, 8 * width, width)
    return batch * total


def vae_encode(config: CausalVAEConfig, size: Size) -> int:
    """Operations of encoding one video of (frames, height, width) pixels as a whole, without tiles."""
    return _chain(encoder_layers(config), size)


def vae_decode(config: CausalVAEConfig, latent_size: Size) -> int:
    """Operations of decoding latents of (frames, height, width) as a whole, without tiles."""
    return _chain(decoder_layers(config), latent_size)


def training_step(
    latte: LatteConfig, vae: CausalVAEConfig, size: Size, *, num_images: int = 0, ranks: int = 1, temporal: bool = True
) -> dict[str, int]:
    """Operations of one clip of (frames, height, width) pixels and its pictures in a training step.

    `encode` are those of its latents, which the ranks that share a clip's frames make in turn, so that each does 1/ranks of them a step;
    `transformer` those of the one rank that has most to do, forward and backward.
    """
    latent_size = ((size[0] - 1) // vae.time_stride + 1, size[1] // vae.space_stride, size[2] // vae.space_stride)
    forward = latte_forward(latte, latent_size, num_images=num_images, temporal=temporal, ranks=ranks)
    return {
        "encode": vae_encode(vae, size) + num_images * vae_encode(vae, (1, *size[1:])),
        "transformer": STEP_FORWARDS * forward,
    }


def t5_encode(config: T5Config, length: int) -> int:
    """Operations of encoding one text of `length` tokens, padding included."""
    inner = config.num_heads * config.d_kv
    layer = linear(length, 4 * inner, config.d_model) + _scores(length, length, inner) + linear(length, 3 * config.d_ff, config.d_model)
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
