"""Cost of the transformer: floating-point operations and memory of a forward and of a training step.

Loads without MindSpore.
"""

from math import prod
from typing import NamedTuple

from opensora.models.flops import attention_scores, linear
from opensora.models.geometry import FLOAT, Size
from opensora.models.latte.config import TIMESTEP_CHANNELS, LatteConfig

STEP_FORWARDS = 4
"""Cost of a training step in forwards: the forward, two for the gradients of inputs and of weights, and one
that the backward pass repeats for layers that do not save their activations."""

# Activations of one forward in units of tokens * width, measured on a CPU. Compiled blocks keep workspace.
ACTIVATIONS = 110
# A lower bound of the same: the input of a block (1) and the hidden layer of its feed-forward (4).
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
    """Operations of one forward of LatteT2V on latents (batch, 4, T + num_images, h, w).

    latent_size: (T, h, w).
    text_length: tokens of a text; default: the model's maximum.
    texts: texts whose keys and values are computed; default: one for the video and one for each image. Steps
        of sampling have 0, since keys and values are computed once; in the reference T + num_images.
    ranks: devices that split the frames and images; the result is for the device that has most.
    """
    tokens, images = _tokens(config, latent_size, text_length, num_images, ranks), -(-num_images // ranks)
    texts = 1 + images if texts is None else texts
    width, patch = config.width, config.patch_size**2
    total = linear(tokens.spatial, config.in_channels * patch, width) + linear(
        tokens.spatial, width, config.out_channels * patch
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

    num_no_recompute: the number of layers, counted from the last, that save their activations.
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
    saved = range(max(0, config.num_layers - num_no_recompute), config.num_layers)
    return STEP_FORWARDS * forward - batch * sum(
        _layer_flops(config, layer, tokens, temporal) for layer in saved
    )


class _Tokens(NamedTuple):
    """Tokens of the rank that has most. Ranks split patches in temporal blocks, frames in all others."""

    spatial: int
    """Patches of all its frames and images."""
    patches: int
    """Patches of one frame."""
    temporal: int
    """Frames of all its patches."""
    frames: int
    """Frames of the whole video."""
    text: int
    """Tokens of one text."""


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
    """A spatial and a temporal block, without the keys and values of the text."""
    width = config.width
    factor = config.compress_kv_factor if config.compresses(layer) else 1
    total = _attention(tokens.spatial, tokens.spatial // factor**2, tokens.patches // factor**2, width)
    # Cross-attention: queries, output and scores.
    total += linear(tokens.spatial, 2 * width, width) + attention_scores(tokens.spatial, tokens.text, width)
    total += linear(tokens.spatial, 8 * width, width)
    if temporal:
        total += _attention(
            tokens.temporal, tokens.temporal // factor, tokens.frames // factor, width
        ) + linear(tokens.temporal, 8 * width, width)
    return total


def _attention(tokens: int, sources: int, keys: int, width: int) -> int:
    """Self-attention of tokens with `keys` keys each; `sources` is the number of keys that are computed."""
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


def training_bytes(config: LatteConfig, latent_size: Size, num_images: int = 0) -> int:
    """Bytes of a sample's activations in a training step, at least: the inputs of all blocks.

    The backward pass recomputes the rest, block by block.
    """
    frames, *side = latent_size
    blocks = 2 * config.num_layers  # a spatial and a temporal one for each layer
    return (blocks + LEAST_ACTIVATIONS) * _activation(config, (frames + num_images, side[0], side[1]))


def _activation(config: LatteConfig, latent_size: Size) -> int:
    """Bytes of one float32 value for each token and channel."""
    return FLOAT * config.width * (prod(latent_size) // config.patch_size**2)
