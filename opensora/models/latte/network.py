"""The network of LatteT2V: pure functions `(run, config, inputs)`, for whatever runs its blocks."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from opensora.engine.block import Run
from opensora.models import embeddings
from opensora.models.latte import blocks
from opensora.models.latte.config import LatteConfig
from opensora.nn import Tensor
from opensora.nn.exchange import FrameExchange

TextKeysValues = tuple[Tensor, Tensor]
"""A text's keys and values for one layer, each (B, 1+N, heads, L, d)."""


class Masks(NamedTuple):
    """Biases of the attention scores; None keeps all keys."""

    text: Tensor  # (B, 1+N, L)
    latents: Tensor  # (B*F, S)
    compressed: Tensor  # (B*F, S/factor^2), of layers that compress their keys


def text_keys_values(run: Run, config: LatteConfig, text_embeds: Tensor) -> list[TextKeysValues]:
    """Keys and values of a text, (B, L, C) or (B, 1+N, L, C), for each layer."""
    text = run(blocks.embed_text, ("caption_projection.linear_",), text_embeds)  # (B, 1+N, L, D)
    return [
        run(blocks.text_keys_values, f"transformer_blocks.{layer}.attn2", text, config.num_attention_heads)
        for layer in range(config.num_layers)
    ]


def denoise(
    run: Run,
    config: LatteConfig,
    latents: Tensor,
    sinusoids: Tensor,
    levels: Tensor,
    text_kv: list[TextKeysValues],
    masks: Masks,
    num_images: int,
    temporal: bool,
    exchange: FrameExchange,
) -> Tensor:
    """Latents (B, C, T+N, H, W) -> noise and logits of its variance, (B, 2C, T+N, H, W).

    sinusoids: (B, 256), of the timestep. levels: (B, 2), factors of signal and noise at the timestep, for
    models that predict the velocity.
    """
    frames = latents.shape[2] - num_images
    grid = latents.shape[3] // config.patch_size, latents.shape[4] // config.patch_size
    all_frames = exchange.total_frames(frames)
    positions = _positions(config, all_frames, grid)
    space = tuple(None if table is None else run.tensor(table) for table in positions.space)
    time = tuple(None if table is None else run.tensor(table) for table in positions.time)
    space_sizes = grid, config.num_attention_heads, config.norm_eps
    time_sizes = all_frames, config.num_attention_heads, config.norm_eps
    time_block = exchange.wrap_temporal(blocks.temporal)

    embedded, conditioning = run(blocks.embed_timestep, "adaln_single", sinusoids)  # (B, D), (B, 6*D)
    x = run(blocks.embed_patches, "pos_embed", latents, run.tensor(positions.patches))  # (B, T+N, S, D)
    for layer, (keys, values) in enumerate(text_kv):
        name = f"transformer_blocks.{layer}"
        latent_mask = masks.compressed if config.compresses(layer) else masks.latents
        x = run(
            blocks.spatial, name, x, conditioning, keys, values, masks.text, latent_mask, *space, space_sizes
        )  # (B, T+N, S, D)
        if temporal and layer == 0:
            x = run(blocks.add_frame_positions, "", x, exchange.local_rows(run.tensor(positions.frames)))
        if temporal:
            x = run(time_block, f"temporal_{name}", x, conditioning, *time, time_sizes)
    head = ("scale_shift_table", "proj_out.")
    x = run(blocks.output, head, x, embedded, grid, config.patch_size)  # (B, 2C, T+N, H, W)
    if config.prediction_type == "v_prediction":
        x = run(blocks.noise_of_velocity, "", x, latents, levels)
    return x


class Positions(NamedTuple):
    """Positions of patches and frames: tables added to the tokens, and (cos, sin) that rotate the heads."""

    patches: np.ndarray  # (S, D)
    frames: np.ndarray  # (T, D)
    space: tuple[np.ndarray | None, ...]  # (S, d) each
    time: tuple[np.ndarray | None, ...]  # (T, d) each


@lru_cache(maxsize=8)
def _positions(config: LatteConfig, frames: int, grid: tuple[int, int]) -> Positions:
    base_size = config.sample_size[0] // config.patch_size
    patches = embeddings.sincos_2d(config.width, grid, base_size, config.space_scale)
    times = embeddings.sincos_frames(config.width, frames, config.video_length, config.time_scale)
    space: tuple[np.ndarray | None, ...] = (None, None)
    time: tuple[np.ndarray | None, ...] = (None, None)
    if config.use_rope:
        space = embeddings.rope_2d(config.attention_head_dim, grid, config.space_scale)
        time = embeddings.rope_1d(config.attention_head_dim, frames, config.time_scale)
    return Positions(patches, times, space, time)
