"""The networks of class-conditional Latte: pure functions `(run, config, inputs)`.

Each returns noise and logits of its variance, (B, 2C, T+N, H, W).
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from opensora.engine.block import Block, Run
from opensora.engine.tree import Tree
from opensora.models import embeddings
from opensora.models.geometry import FLOAT
from opensora.models.latte import blocks as shared
from opensora.models.latte.network import Masks
from opensora.models.latte.network import denoise as denoise_t2v
from opensora.models.latte_class import blocks
from opensora.models.latte_class.config import LatteClassConfig
from opensora.models.latte_class.weights import as_t2v
from opensora.nn import Tensor
from opensora.nn.exchange import FrameExchange

SCORE_BYTES = 2**28
"""Bytes of the scores of attention within frames that are computed at once."""


class DenoiserInputs(NamedTuple):
    """The inputs of a network."""

    latents: Tensor  # (B, C, T+N, H, W)
    sinusoids: Tensor  # (B, 256), of the timestep
    labels: Tensor  # (B,), or None
    bias: Tensor  # (B*(T+N), S), of the keys, or None
    num_images: int  # N, the images after the video


Network = Callable[[Run, LatteClassConfig, DenoiserInputs], Tensor]


def denoise_dit(run: Run, config: LatteClassConfig, inputs: DenoiserInputs) -> Tensor:
    """The network of Vchitect/Latte."""
    latents, sinusoids, labels, bias, num_images = inputs
    grid, frames = _grid(config, latents), latents.shape[2] - num_images
    patches, times = _positions(config, frames, grid)
    heads = config.num_attention_heads
    condition = run(blocks.embed_condition, ("t_embedder.", "y_embedder."), sinusoids, labels)  # (B, D)
    x = run(shared.embed_patches, "x_embedder", latents, run.tensor(patches))  # (B, T+N, S, D)
    for layer in range(config.num_layers):
        x = _in_frames(run, config, blocks.spatial, f"blocks.{2 * layer}", x, condition, bias, heads)
        if layer == 0:
            x = run(shared.add_frame_positions, "", x, run.tensor(times))
        x = run(blocks.temporal, f"blocks.{2 * layer + 1}", x, condition, bias, (frames, heads))
    return run(blocks.output, "final_layer", x, condition, grid, config.patch_size)


def denoise_single(run: Run, config: LatteClassConfig, inputs: DenoiserInputs) -> Tensor:
    """Latte-XL/122 of v1.0.0: a LatteT2V without text, which does not read labels."""
    latents, sinusoids, _, bias, num_images = inputs
    no_text = [(None, None)] * config.num_layers
    masks = Masks(None, bias, bias)
    return denoise_t2v(
        run, as_t2v(config), latents, sinusoids, None, no_text, masks, num_images, True, FrameExchange()
    )


def denoise_zero(run: Run, config: LatteClassConfig, inputs: DenoiserInputs) -> Tensor:
    """LatteClass-XL/122 of v1.0.0, whose own forward raises an error.

    Three repairs let it run: every frame and patch has its sample's timestep and label, and the end is
    modulated by the condition of the first block.
    """
    latents, sinusoids, labels, bias, num_images = inputs
    grid, frames = _grid(config, latents), latents.shape[2] - num_images
    patches, times = _positions(config, frames, grid)
    space_sizes = grid, config.num_attention_heads, config.norm_eps
    time_sizes = frames, config.num_attention_heads, config.norm_eps
    x = run(shared.embed_patches, "pos_embed", latents, run.tensor(patches))  # (B, T+N, S, D)
    first = None
    for layer in range(config.num_layers):
        name = f"transformer_blocks.{layer}"
        condition = run(blocks.embed_own_condition, f"{name}.norm1.emb", sinusoids, labels)  # (B, D)
        first = condition if first is None else first
        x = _in_frames(run, config, blocks.zero_spatial, name, x, condition, bias, space_sizes)
        if layer == 0:
            x = run(shared.add_frame_positions, "", x, run.tensor(times))
        name = f"temporal_{name}"
        condition = run(blocks.embed_own_condition, f"{name}.norm1.emb", sinusoids, labels)
        x = run(blocks.zero_temporal, name, x, condition, time_sizes)
    return run(blocks.zero_output, ("proj_out_1.", "proj_out_2."), x, first, grid, config.patch_size)


NETWORKS: dict[str, Network] = {"dit": denoise_dit, "single": denoise_single, "zero": denoise_zero}


def _in_frames(
    run: Run,
    config: LatteClassConfig,
    block: Block,
    name: str,
    x: Tensor,
    condition: Tensor,
    bias: Tensor,
    sizes: Tree,
) -> Tensor:
    """A block whose tokens attend within their frames, on x (B, F, S, D) by groups of frames.

    A group is all of them, unless the scores of attention would take more than SCORE_BYTES.
    """
    batch, frames, patches, _ = x.shape
    each = FLOAT * batch * config.num_attention_heads * patches**2
    count = min(frames, -(-frames * each // SCORE_BYTES))
    if count == 1:
        return run(block, name, x, condition, bias, sizes)
    size = -(-frames // count)
    parts = []
    for first in range(0, frames, size):
        last = min(first + size, frames)
        part = run(blocks.take_frames, "", x, first, last)
        rows = None if bias is None else run(blocks.take_bias, "", bias, frames, first, last)
        parts.append(run(block, name, part, condition, rows, sizes))
    return run(blocks.join_frames, "", *parts)


def _grid(config: LatteClassConfig, latents: Tensor) -> tuple[int, int]:
    return latents.shape[3] // config.patch_size, latents.shape[4] // config.patch_size


@lru_cache(maxsize=8)
def _positions(config: LatteClassConfig, frames: int, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The tables that are added to the tokens: of patches (S, D), and of frames (T, D)."""
    space = embeddings.sincos_2d(config.width, grid, config.grid[0], config.space_scale)
    return space, embeddings.sincos_frames(config.width, frames, config.video_length, config.time_scale)
