"""What the transformer costs: floating-point operations and memory of a forward and of a training step.

Imports nothing of MindSpore.
"""

from math import prod
from typing import NamedTuple

from opensora.models.flops import attention_scores, linear
from opensora.models.geometry import FLOAT, Size
from opensora.models.latte.config import TIMESTEP_CHANNELS, LatteConfig

STEP_FORWARDS = 4
"""Forwards of the transformer that a training step costs: one, as many operations for each of two kinds of gradients, and the one that the
backward pass repeats, but for layers that keep what they computed."""

# Measured on a CPU, where every compiled block keeps the workspace of its operators: one evaluation in units of tokens * width.
ACTIVATIONS = 110
# Float32 values that surely exist at once for each token and channel: the input of a block and its widened feed-forward.
LEAST_ACTIVATIONS = 5


def forward_flops(
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
    default one for the video and each image. While sampling it is 0, since they are kept; the reference computes
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
        total + sum(_layer_flops(config, layer, tokens, temporal) for layer in range(config.num_layers))
    )


def step_flops(
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
    """Operations of a training step, forward and backward, with the arguments of `forward_flops`.

    num_no_recompute: how many of the layers, the last ones, keep what they compute.
    """
    forward = forward_flops(
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
        _layer_flops(config, layer, tokens, temporal) for layer in keeping
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


def _layer_flops(config: LatteConfig, layer: int, tokens: _Tokens, temporal: bool) -> int:
    """A spatial and a temporal block, without the text's keys and values."""
    width = config.width
    factor = config.compress_kv_factor if config.compresses(layer) else 1
    total = _attention(tokens.here, tokens.here // factor**2, tokens.patches // factor**2, width)
    total += linear(tokens.here, 2 * width, width) + attention_scores(
        tokens.here, tokens.text, width
    )  # queries and output of the text's attention
    total += linear(tokens.here, 8 * width, width)
    if temporal:
        total += _attention(tokens.moving, tokens.moving // factor, tokens.frames // factor, width) + linear(
            tokens.moving, 8 * width, width
        )
    return total


def _attention(tokens: int, sources: int, keys: int, width: int) -> int:
    """Self-attention of tokens that see `keys` each, of `sources` for which keys and values are computed."""
    return (
        linear(tokens, 2 * width, width)
        + linear(sources, 2 * width, width)
        + attention_scores(tokens, keys, width)
    )


def activation_bytes(config: LatteConfig, latent_size: Size) -> int:
    """Bytes of activations of one forward for both halves of the guidance."""
    return ACTIVATIONS * 2 * _activation(config, latent_size)


def least_activation_bytes(config: LatteConfig, latent_size: Size, guided: bool) -> int:
    """Bytes that no forward can do without."""
    return LEAST_ACTIVATIONS * (2 if guided else 1) * _activation(config, latent_size)


def _activation(config: LatteConfig, latent_size: Size) -> int:
    """Bytes of one float32 value for each token and channel."""
    return FLOAT * config.width * (prod(latent_size) // config.patch_size**2)
