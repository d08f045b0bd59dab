"""Attention of LatteT2V: within each frame, over the frames, and from each frame to its caption.

Tokens are (B, F, S, D): F frames, S patches of a frame with rows first, D channels in heads of d channels.
A rotation is a pair (cos, sin) of tables, or (None, None) for a model without rotary positions.
"""

from opensora.engine.block import Weights
from opensora.nn import F, Tensor

COMPRESSION_EPS = 1e-5

Rotation = tuple[Tensor, Tensor]
"""cos and sin of every position, (positions, d) each, or None and None."""
Text = tuple[Tensor, Tensor, Tensor]
"""Keys and values (B, 1+N, heads, L, d), and their bias (B, 1+N, L) or None."""


def frame_attention(
    w: Weights, x: Tensor, bias: Tensor, rotation: Rotation, grid: tuple[int, int], heads: int
) -> Tensor:
    """Self-attention within each frame, (B, F, S, D) -> (B, F, S, D).

    bias: (B*F, keys) or None. rotation: for S positions. grid: rows and columns of patches.
    """
    source = compress_space(w, x, grid, factor(w)) if compresses(w) else x  # (B, F, keys, D)
    query = rotate(frame_heads(F.linear(w, "attn1.to_q", x), heads), rotation, axes=2)
    key = rotate(frame_heads(F.linear(w, "attn1.to_k", source), heads), rotation, axes=2)
    value = frame_heads(F.linear(w, "attn1.to_v", source), heads)
    y = F.attention(query, key, value, _for_keys(bias))  # (B*F, heads, S, d)
    return F.linear(w, "attn1.to_out.0", merge_frame_heads(y, x.shape[0]))


def time_attention(w: Weights, x: Tensor, rotation: Rotation, heads: int) -> Tensor:
    """Self-attention of each patch over the frames, (B, T, S, D) -> (B, T, S, D).

    rotation: for T positions.
    """
    source = compress_time(w, x, factor(w)) if compresses(w) else x  # (B, keys, S, D)
    query = rotate(time_heads(F.linear(w, "attn1.to_q", x), heads), rotation, axes=1)
    key = rotate(time_heads(F.linear(w, "attn1.to_k", source), heads), rotation, axes=1)
    value = time_heads(F.linear(w, "attn1.to_v", source), heads)
    y = F.attention(query, key, value)  # (B*S, heads, T, d)
    return F.linear(w, "attn1.to_out.0", merge_time_heads(y, x.shape[0]))


def cross_attention(w: Weights, x: Tensor, text: Text) -> Tensor:
    """Attention to the text, (B, T+N, S, D) -> (B, T+N, S, D).

    The T frames of the video attend to caption 0, image n to caption n + 1.
    """
    keys, values, bias = text
    batch, captions, heads, length, depth = keys.shape
    images = captions - 1
    frames = x.shape[1] - images
    query = F.linear(w, "attn2.to_q", x)
    video_bias = None if bias is None else bias[:, 0]
    y = _attend_to_caption(query[:, :frames], keys[:, 0], values[:, 0], video_bias)
    if images:
        rows = batch * images
        still_query = F.reshape(query[:, frames:], (rows, 1, *x.shape[2:]))
        still_keys = F.reshape(keys[:, 1:], (rows, heads, length, depth))
        still_values = F.reshape(values[:, 1:], (rows, heads, length, depth))
        still_bias = None if bias is None else F.reshape(bias[:, 1:], (rows, length))
        still = _attend_to_caption(still_query, still_keys, still_values, still_bias)
        y = F.concat((y, F.reshape(still, (batch, images, *x.shape[2:]))), 1)
    return F.linear(w, "attn2.to_out.0", y)


def _attend_to_caption(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """query (B, F, S, D), keys and values (B, heads, L, d), bias (B, L) or None -> (B, F, S, D).

    All frames of a sample become one long sequence of queries, so the text is not repeated for each frame.
    """
    batch, frames, patches, width = query.shape
    query = F.reshape(query, (batch, 1, frames * patches, width))
    y = F.attention(frame_heads(query, keys.shape[1]), keys, values, _for_keys(bias))  # (B, heads, F*S, d)
    return F.reshape(merge_frame_heads(y, batch), (batch, frames, patches, width))


def _for_keys(bias: Tensor) -> Tensor:
    """(rows, keys) -> (rows, 1, 1, keys), or None."""
    if bias is None:
        return None
    return F.stop_gradient(F.reshape(bias, (bias.shape[0], 1, 1, bias.shape[-1])))


def rotate(x: Tensor, rotation: Rotation, axes: int) -> Tensor:
    """Rotary position embedding (arXiv:2104.09864) of heads (B, heads, L, d).

    The d channels are split into `axes` equal parts, one for each axis of positions, and each part is rotated
    by itself.
    """
    cos, sin = rotation
    if cos is None:
        return x
    batch, heads, length, width = x.shape
    pairs = F.reshape(x, (batch * heads * length, axes, 2, width // axes // 2))
    turned = F.reshape(F.concat((-pairs[:, :, 1:], pairs[:, :, :1]), 2), x.shape)
    return x * F.stop_gradient(cos).astype(x.dtype) + turned * F.stop_gradient(sin).astype(x.dtype)


def frame_heads(x: Tensor, heads: int) -> Tensor:
    """(B, F, S, D) -> (B*F, heads, S, d)."""
    batch, frames, patches, width = x.shape
    return F.permute(F.reshape(x, (batch * frames, patches, heads, width // heads)), (0, 2, 1, 3))


def merge_frame_heads(x: Tensor, batch: int) -> Tensor:
    """(B*F, heads, S, d) -> (B, F, S, D)."""
    rows, heads, patches, width = x.shape
    return F.reshape(F.permute(x, (0, 2, 1, 3)), (batch, rows // batch, patches, heads * width))


def time_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, S, D) -> (B*S, heads, T, d)."""
    batch, frames, patches, width = x.shape
    by_patch = F.permute(F.reshape(x, (batch, frames, patches, heads, width // heads)), (0, 2, 3, 1, 4))
    return F.reshape(by_patch, (batch * patches, heads, frames, width // heads))


def merge_time_heads(x: Tensor, batch: int) -> Tensor:
    """(B*S, heads, T, d) -> (B, T, S, D)."""
    rows, heads, frames, width = x.shape
    by_frame = F.permute(F.reshape(x, (batch, rows // batch, heads, frames, width)), (0, 3, 1, 2, 4))
    return F.reshape(by_frame, (batch, frames, rows // batch, heads * width))


def compresses(w: Weights) -> bool:
    """True if this block compresses its keys and values (PixArt-sigma, arXiv:2403.04692, section 3.2)."""
    return "attn1.sr.weight" in w


def factor(w: Weights) -> int:
    """Patches, along each compressed axis, that become one key."""
    return int(w["attn1.sr.weight"].shape[-1])


def compress_space(w: Weights, x: Tensor, grid: tuple[int, int], factor: int) -> Tensor:
    """Compress each frame, (B, F, S, D) -> (B, F, S/factor^2, D).

    A depthwise convolution with stride = kernel is a weighted sum over each square of tokens. Rows and
    columns that do not fill a square are dropped.
    """
    batch, frames, _, width = x.shape
    rows, columns = grid[0] // factor, grid[1] // factor
    x = F.reshape(x, (batch * frames, grid[0], grid[1], width))[:, : rows * factor, : columns * factor]
    x = F.reshape(x, (batch * frames * rows, factor, columns, factor, width))
    kernel = F.reshape(F.transpose(w["attn1.sr.weight"], (2, 3, 1, 0)), (1, factor, 1, factor, width))
    x = F.reshape(F.sum(x * kernel, (1, 3)), (batch, frames, rows * columns, width))
    return _normalise_compressed(w, x)


def compress_time(w: Weights, x: Tensor, factor: int) -> Tensor:
    """Compress along time, (B, T, S, D) -> (B, T', S, D).

    Of an odd number of frames the first is repeated factor - 1 times, as the autoencoder does.
    """
    batch, frames, patches, width = x.shape
    if frames % 2 == 1:
        x = F.concat((x[:, :1],) * (factor - 1) + (x,), 1)
    steps = x.shape[1] // factor
    x = F.reshape(x[:, : steps * factor], (batch * steps, factor, patches, width))
    kernel = F.reshape(F.transpose(w["attn1.sr.weight"], (2, 1, 0)), (1, factor, 1, width))
    return _normalise_compressed(w, F.reshape(F.sum(x * kernel, 1), (batch, steps, patches, width)))


def _normalise_compressed(w: Weights, x: Tensor) -> Tensor:
    return (
        F.layer_norm(x + w["attn1.sr.bias"], COMPRESSION_EPS) * w["attn1.norm.weight"] + w["attn1.norm.bias"]
    )
