"""The blocks of class-conditional Latte, beside those that it shares with LatteT2V.

Tokens are (B, F, S, D): F frames (T of the video, then N images), S patches of a frame with rows first, D
channels.
"""

from opensora.engine.block import Block, Weights
from opensora.models.latte.attention import (
    frame_attention,
    frame_heads,
    merge_frame_heads,
    merge_time_heads,
    time_attention,
    time_heads,
)
from opensora.models.latte.blocks import feed_forward, for_tokens, unpatchify, with_images
from opensora.nn import F, Tensor

EPS = 1e-6
NO_ROTATION = None, None


@Block
def embed_condition(w: Weights, sinusoids: Tensor, labels: Tensor) -> Tensor:
    """The condition of "dit": the timestep plus the class, sinusoids (B, 256) and labels (B,) -> (B, D).

    labels: None for an unconditional model.
    """
    condition = _embed_timestep(w, "t_embedder.mlp.0", "t_embedder.mlp.2", sinusoids)
    if labels is None:
        return condition
    return condition + F.gather(w["y_embedder.embedding_table.weight"], labels, 0)


@Block
def spatial(w: Weights, x: Tensor, condition: Tensor, bias: Tensor, heads: int) -> Tensor:
    """A DiT block whose attention is within each frame: (B, F, S, D) -> same.

    condition: (B, D). bias: (B*F, S) or None.
    """
    return _dit_block(w, x, condition, bias, heads, in_time=False)


@Block
def temporal(w: Weights, x: Tensor, condition: Tensor, bias: Tensor, sizes: tuple[int, int]) -> Tensor:
    """A DiT block whose attention is between the frames of each patch; images pass: (B, F, S, D) -> same.

    condition: (B, D). bias: (B*F, S) or None. sizes: (T, heads).
    """
    frames, heads = sizes
    if bias is not None:
        batch, all_frames, patches, _ = x.shape
        bias = F.reshape(bias, (batch, all_frames, patches))[:, :frames]
        bias = F.reshape(F.transpose(bias, (0, 2, 1)), (batch * patches, frames))
    return with_images(_dit_block(w, x[:, :frames], condition, bias, heads, in_time=True), x)


def _dit_block(w: Weights, x: Tensor, condition: Tensor, bias: Tensor, heads: int, in_time: bool) -> Tensor:
    """bias: (rows, keys) or None, with a row for each set of tokens that attend to one another."""
    shift, scale, gate, shift_ff, scale_ff, gate_ff = _modulation(w, "adaLN_modulation.1", condition, 6)
    y = F.modulate(F.layer_norm(x, EPS), scale, shift)
    x = F.add_gated(x, gate, _attention(w, y, bias, heads, in_time))
    y = F.modulate(F.layer_norm(x, EPS), scale_ff, shift_ff)
    return F.add_gated(x, gate_ff, F.linear(w, "mlp.fc2", F.gelu(F.linear(w, "mlp.fc1", y))))


def _attention(w: Weights, x: Tensor, bias: Tensor, heads: int, in_time: bool) -> Tensor:
    """Self-attention within each frame or between the frames of each patch, (B, F, S, D) -> same."""
    split, merge = (time_heads, merge_time_heads) if in_time else (frame_heads, merge_frame_heads)
    query, key, value = F.chunk(F.linear(w, "attn.qkv", x), 3, -1)
    keys_bias = None if bias is None else F.reshape(bias, (bias.shape[0], 1, 1, bias.shape[1]))
    y = F.attention(split(query, heads), split(key, heads), split(value, heads), keys_bias)
    return F.linear(w, "attn.proj", merge(y, x.shape[0]))


@Block
def take_frames(w: Weights, x: Tensor, first: int, last: int) -> Tensor:
    """Frames `first` up to, not including, `last` of tokens (B, F, S, D)."""
    return x[:, first:last]


@Block
def take_bias(w: Weights, bias: Tensor, frames: int, first: int, last: int) -> Tensor:
    """The rows of these frames in a bias (B*F, S). frames: F."""
    rows, patches = bias.shape
    part = F.reshape(bias, (rows // frames, frames, patches))[:, first:last]
    return F.reshape(part, (rows // frames * (last - first), patches))


@Block
def join_frames(w: Weights, *parts: Tensor) -> Tensor:
    """Tokens (B, F, S, D) of groups of frames, one after the other."""
    return F.concat(parts, 1)


@Block
def output(w: Weights, x: Tensor, condition: Tensor, grid: tuple[int, int], patch_size: int) -> Tensor:
    """The end of "dit": tokens (B, F, S, D) and condition (B, D) -> latents (B, C, F, H, W)."""
    shift, scale = _modulation(w, "adaLN_modulation.1", condition, 2)
    return unpatchify(F.linear(w, "linear", F.modulate(F.layer_norm(x, EPS), scale, shift)), grid, patch_size)


@Block
def embed_own_condition(w: Weights, sinusoids: Tensor, labels: Tensor) -> Tensor:
    """The condition of a block of "zero", from timestep and class: (B, 256) and (B,) -> (B, D)."""
    name = "timestep_embedder"
    condition = _embed_timestep(w, f"{name}.linear_1", f"{name}.linear_2", sinusoids)
    return condition + F.gather(w["class_embedder.embedding_table.weight"], labels, 0)


@Block
def zero_spatial(
    w: Weights, x: Tensor, condition: Tensor, bias: Tensor, sizes: tuple[tuple[int, int], int, float]
) -> Tensor:
    """A block of "zero" with attention within each frame: (B, F, S, D) -> same.

    condition: (B, D), this block's own. bias: (B*F, S) or None. sizes: (grid, heads, eps).

    As in v1.0.0 the feed-forward sees the modulated input of the attention once more, not its result.
    """
    grid, heads, eps = sizes
    shift, scale, gate, shift_ff, scale_ff, gate_ff = _modulation(w, "norm1.linear", condition, 6)
    y = F.modulate(F.layer_norm(x, eps), scale, shift)
    x = F.add_gated(x, gate, frame_attention(w, y, bias, NO_ROTATION, grid, heads))
    return F.add_gated(x, gate_ff, feed_forward(w, F.modulate(y, scale_ff, shift_ff)))


@Block
def zero_temporal(w: Weights, x: Tensor, condition: Tensor, sizes: tuple[int, int, float]) -> Tensor:
    """A block of "zero" with attention between frames; images pass: (B, F, S, D) -> same.

    condition: (B, D), this block's own. sizes: (T, heads, eps).
    """
    frames, heads, eps = sizes
    video = x[:, :frames]
    shift, scale, gate, shift_ff, scale_ff, gate_ff = _modulation(w, "norm1.linear", condition, 6)
    y = F.modulate(F.layer_norm(video, eps), scale, shift)
    video = F.add_gated(video, gate, time_attention(w, y, NO_ROTATION, heads))
    return with_images(F.add_gated(video, gate_ff, feed_forward(w, F.modulate(y, scale_ff, shift_ff))), x)


@Block
def zero_output(w: Weights, x: Tensor, condition: Tensor, grid: tuple[int, int], patch_size: int) -> Tensor:
    """The end of "zero": tokens (B, F, S, D) and the first block's condition -> latents (B, C, F, H, W)."""
    shift, scale = _modulation(w, "proj_out_1", condition, 2)
    y = F.linear(w, "proj_out_2", F.modulate(F.layer_norm(x, EPS), scale, shift))
    return unpatchify(y, grid, patch_size)


def _embed_timestep(w: Weights, first: str, second: str, sinusoids: Tensor) -> Tensor:
    """Two linear maps, named `first` and `second`, with a SiLU between them: (B, 256) -> (B, D)."""
    sinusoids = F.stop_gradient(sinusoids).astype(w[f"{first}.bias"].dtype)
    return F.linear(w, second, F.silu(F.linear(w, first, sinusoids)))


def _modulation(w: Weights, name: str, condition: Tensor, parts: int) -> Tensor:
    """Shifts, scales and gates from a condition (B, D) by the linear map `name`: (parts, B, 1, 1, D)."""
    y = F.linear(w, name, F.silu(condition))
    return for_tokens(F.reshape(y, (y.shape[0], parts, condition.shape[1])))
