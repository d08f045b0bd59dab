"""The blocks of LatteT2V, pure functions of their weights. Tokens are (B, F, S, D) everywhere: F frames (T of the video, then N images),
S patches of a frame, rows first, D channels. Only attention looks at another layout, through `spatial_heads` and `temporal_heads`.
"""

from typing import Any

from opensora.engine.block import Block
from opensora.nn.activations import gelu, silu
from opensora.nn.attention import attention
from opensora.nn.linear import linear
from opensora.nn.modulation import add_gated, modulate
from opensora.nn.normalisation import layer_norm
from opensora.nn.permute import permute
from opensora.runtime import mindspore

ms = mindspore()
ops = ms.ops

MASKED = -10000.0
OUTPUT_EPS = 1e-6
COMPRESSION_EPS = 1e-5


def spatial_heads(x: Any, heads: int) -> Any:
    """(B, F, S, D) -> (B*F, heads, S, d)."""
    batch, frames, patches, width = x.shape
    return permute(ops.reshape(x, (batch * frames, patches, heads, width // heads)), (0, 2, 1, 3))


def from_spatial_heads(x: Any, batch: int) -> Any:
    """(B*F, heads, S, d) -> (B, F, S, D)."""
    rows, heads, patches, width = x.shape
    return ops.reshape(permute(x, (0, 2, 1, 3)), (batch, rows // batch, patches, heads * width))


def temporal_heads(x: Any, heads: int) -> Any:
    """(B, T, S, D) -> (B*S, heads, T, d)."""
    batch, frames, patches, width = x.shape
    by_patch = permute(ops.reshape(x, (batch, frames, patches, heads, width // heads)), (0, 2, 3, 1, 4))
    return ops.reshape(by_patch, (batch * patches, heads, frames, width // heads))


def from_temporal_heads(x: Any, batch: int) -> Any:
    """(B*S, heads, T, d) -> (B, T, S, D)."""
    rows, heads, frames, width = x.shape
    by_frame = permute(ops.reshape(x, (batch, rows // batch, heads, frames, width)), (0, 3, 1, 2, 4))
    return ops.reshape(by_frame, (batch, frames, rows // batch, heads * width))


def rotate(x: Any, cos: Any, sin: Any, axes: int) -> Any:
    """Rotary position embedding (arXiv:2104.09864) of heads (B, heads, L, d), for each of `axes` equal parts of d by itself."""
    if cos is None:
        return x
    batch, heads, length, width = x.shape
    pairs = ops.reshape(x, (batch * heads * length, axes, 2, width // axes // 2))
    turned = ops.reshape(ops.concat((-pairs[:, :, 1:], pairs[:, :, :1]), 2), x.shape)
    return x * ops.stop_gradient(cos).astype(x.dtype) + turned * ops.stop_gradient(sin).astype(x.dtype)


def compress_space(w: Any, x: Any, grid: tuple[int, int], factor: int) -> Any:
    """Keys' and values' source of PixArt-sigma (arXiv:2403.04692, section 3.2), (B, F, S, D) -> (B, F, S/factor^2, D).

    The depthwise convolution with stride = kernel is a weighted sum over patches of tokens; a remainder at the edges is left out.
    """
    batch, frames, _, width = x.shape
    rows, columns = grid[0] // factor, grid[1] // factor
    x = ops.reshape(x, (batch * frames, grid[0], grid[1], width))[:, : rows * factor, : columns * factor]
    x = ops.reshape(x, (batch * frames * rows, factor, columns, factor, width))
    kernel = ops.reshape(ops.transpose(w["attn1.sr.weight"], (2, 3, 1, 0)), (1, factor, 1, factor, width))
    return _compression_norm(
        w, ops.reshape(ops.sum(x * kernel, (1, 3)), (batch, frames, rows * columns, width))
    )


def compress_time(w: Any, x: Any, factor: int) -> Any:
    """The same along time, (B, T, S, D) -> (B, T', S, D); the first frame is repeated factor - 1 times before an odd number of frames."""
    batch, frames, patches, width = x.shape
    if frames % 2 == 1:
        x = ops.concat((x[:, :1],) * (factor - 1) + (x,), 1)
    steps = x.shape[1] // factor
    x = ops.reshape(x[:, : steps * factor], (batch * steps, factor, patches, width))
    kernel = ops.reshape(ops.transpose(w["attn1.sr.weight"], (2, 1, 0)), (1, factor, 1, width))
    return _compression_norm(w, ops.reshape(ops.sum(x * kernel, 1), (batch, steps, patches, width)))


def _compression_norm(w: Any, x: Any) -> Any:
    return layer_norm(x + w["attn1.sr.bias"], COMPRESSION_EPS) * w["attn1.norm.weight"] + w["attn1.norm.bias"]


def _modulation(table: Any, conditioning: Any) -> Any:
    """A table (n, D) plus conditioning (B, n*D or D) -> (n, B, 1, 1, D): shifts, scales and gates, in the release's order."""
    parts, width = table.shape
    batch = conditioning.shape[0]
    sums = ops.expand_dims(table, 0) + ops.reshape(conditioning, (batch, -1, width))  # (B, n, D)
    return ops.reshape(ops.transpose(sums, (1, 0, 2)), (parts, batch, 1, 1, width))


def _feed_forward(w: Any, x: Any, shift: Any, scale: Any, gate: Any, eps: float) -> Any:
    y = modulate(layer_norm(x, eps), scale, shift)
    return add_gated(x, gate, linear(w, "ff.net.2", gelu(linear(w, "ff.net.0.proj", y))))


def _cross_attention(w: Any, x: Any, text: tuple[Any, Any], bias: Any, frames: int, heads: int) -> Any:
    """Tokens of the video attend to caption 0, those of image n to caption n + 1; keys and values are (B, 1+N, heads, L, d)."""
    batch, _, patches, width = x.shape
    keys, values = text
    query = linear(w, "attn2.to_q", x)
    captions = keys.shape[1]
    length, depth = keys.shape[3], keys.shape[4]
    video = _attend_to_caption(
        query[:, :frames], keys[:, 0], values[:, 0], None if bias is None else bias[:, 0], heads
    )
    if captions > 1:
        images = batch * (captions - 1)
        shape = (images, heads, length, depth)
        still = ops.reshape(query[:, frames:], (images, 1, patches, width))
        image_bias = None if bias is None else ops.reshape(bias[:, 1:], (images, length))
        still = _attend_to_caption(
            still, ops.reshape(keys[:, 1:], shape), ops.reshape(values[:, 1:], shape), image_bias, heads
        )
        video = ops.concat((video, ops.reshape(still, (batch, captions - 1, patches, width))), 1)
    return linear(w, "attn2.to_out.0", video)


def _attend_to_caption(query: Any, keys: Any, values: Any, bias: Any, heads: int) -> Any:
    """query (B, F, S, D), keys and values (B, heads, L, d), bias (B, L): the text is never repeated per frame."""
    batch, frames, patches, width = query.shape
    rows = spatial_heads(ops.reshape(query, (batch, 1, frames * patches, width)), heads)  # (B, heads, F*S, d)
    out = attention(rows, keys, values, _key_bias(bias))
    return ops.reshape(from_spatial_heads(out, batch), query.shape)


def _key_bias(bias: Any) -> Any:
    """(rows, keys) -> (rows, 1, 1, keys), or None."""
    if bias is None:
        return None
    return ops.stop_gradient(ops.reshape(bias, (bias.shape[0], 1, 1, bias.shape[-1])))


def _text_keys_values(w: Any, text: Any, heads: int) -> Any:
    """(B, 1+N, L, D) -> keys and values, each (B, 1+N, heads, L, d)."""
    batch, captions, length, _ = text.shape
    keys, values = linear(w, "to_k", text), linear(w, "to_v", text)
    shape = (batch, captions, heads, length, keys.shape[-1] // heads)
    return ops.reshape(spatial_heads(keys, heads), shape), ops.reshape(spatial_heads(values, heads), shape)


def _spatial(
    w: Any,
    x: Any,
    conditioning: Any,
    keys: Any,
    values: Any,
    text_bias: Any,
    latent_bias: Any,
    cos: Any,
    sin: Any,
    frames: int,
    grid: tuple[int, int],
    heads: int,
    eps: float,
) -> Any:
    """Self-attention within each frame, cross-attention to the text, feed-forward.

    conditioning (B, 6*D), text_bias (B, 1+N, L) and latent_bias (B*F, keys) or None, cos and sin (S, d) or None.
    """
    shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = _modulation(w["scale_shift_table"], conditioning)
    y = modulate(layer_norm(x, eps), scale, shift)
    source = y
    if "attn1.sr.weight" in w:
        source = compress_space(w, y, grid, w["attn1.sr.weight"].shape[-1])
    query = rotate(spatial_heads(linear(w, "attn1.to_q", y), heads), cos, sin, 2)
    key = rotate(spatial_heads(linear(w, "attn1.to_k", source), heads), cos, sin, 2)
    value = spatial_heads(linear(w, "attn1.to_v", source), heads)
    y = from_spatial_heads(attention(query, key, value, _key_bias(latent_bias)), x.shape[0])  # (B, F, S, D)
    x = add_gated(x, gate, linear(w, "attn1.to_out.0", y))
    x = x + _cross_attention(w, x, (keys, values), text_bias, frames, heads)
    return _feed_forward(w, x, shift_mlp, scale_mlp, gate_mlp, eps)


def _temporal(
    w: Any, x: Any, conditioning: Any, cos: Any, sin: Any, frames: int, heads: int, eps: float
) -> Any:
    """Self-attention of every patch over the video's frames, feed-forward; images pass through. cos and sin (T, d) or None."""
    shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = _modulation(w["scale_shift_table"], conditioning)
    video = x[:, :frames]
    y = modulate(layer_norm(video, eps), scale, shift)
    source = y
    if "attn1.sr.weight" in w:
        source = compress_time(w, y, w["attn1.sr.weight"].shape[-1])
    query = rotate(temporal_heads(linear(w, "attn1.to_q", y), heads), cos, sin, 1)
    key = rotate(temporal_heads(linear(w, "attn1.to_k", source), heads), cos, sin, 1)
    value = temporal_heads(linear(w, "attn1.to_v", source), heads)
    y = from_temporal_heads(attention(query, key, value), x.shape[0])  # (B, T, S, D)
    video = add_gated(video, gate, linear(w, "attn1.to_out.0", y))
    video = _feed_forward(w, video, shift_mlp, scale_mlp, gate_mlp, eps)
    return _with_images(video, x)


def _add_frame_positions(w: Any, x: Any, positions: Any) -> Any:
    """x (B, F, S, D) plus positions (T, D) on the frames of the video."""
    frames, width = positions.shape
    table = ops.reshape(ops.stop_gradient(positions), (1, frames, 1, width)).astype(x.dtype)
    table = ops.tile(
        table, (x.shape[0], 1, x.shape[2], 1)
    )  # broadcasting would keep large index tables on a CPU
    return _with_images(x[:, :frames] + table, x)


def _with_images(video: Any, x: Any) -> Any:
    """The video (B, T, S, D), followed by the images of x (B, T+N, S, D)."""
    frames = video.shape[1]
    return video if frames == x.shape[1] else ops.concat((video, x[:, frames:]), 1)


def _patches(w: Any, latents: Any, positions: Any) -> Any:
    """Patch embedding: a convolution with stride = kernel is a product, (B, C, F, H, W) -> (B, F, S, D); positions (S, D)."""
    kernel = w["proj.weight"]  # (D, C, p, p)
    width, channels, size, _ = kernel.shape
    batch, _, frames, height, columns = latents.shape
    rows, columns = height // size, columns // size
    x = ops.reshape(
        ops.transpose(latents.astype(kernel.dtype), (0, 2, 3, 1, 4)),
        (batch * frames * rows, size, channels, columns, size),
    )
    x = ops.reshape(
        ops.transpose(x, (0, 3, 2, 1, 4)), (batch * frames * rows * columns, channels * size * size)
    )
    x = ops.bias_add(
        ops.MatMul(transpose_b=True)(x, ops.reshape(kernel, (width, channels * size * size))), w["proj.bias"]
    )
    x = ops.reshape(x, (batch, frames, rows * columns, width))
    table = ops.reshape(ops.stop_gradient(positions), (1, 1, rows * columns, width)).astype(x.dtype)
    return x + ops.tile(table, (batch, frames, 1, 1))


def _timesteps(w: Any, embedding: Any) -> Any:
    """adaLN-single (arXiv:2310.00426, section 2.3): (B, 256) -> the embedded timestep (B, D), and what all blocks share (B, 6*D)."""
    embedding = ops.stop_gradient(embedding).astype(w["linear.bias"].dtype)
    y = linear(w, "emb.timestep_embedder.linear_1", embedding)
    y = linear(w, "emb.timestep_embedder.linear_2", silu(y))
    return y, linear(w, "linear", silu(y))


def _captions(w: Any, text_embeds: Any) -> Any:
    """(B, L, C) or (B, 1+N, L, C) -> (B, 1+N, L, D)."""
    text_embeds = text_embeds.astype(w["caption_projection.linear_1.bias"].dtype)
    y = linear(w, "caption_projection.linear_2", gelu(linear(w, "caption_projection.linear_1", text_embeds)))
    return y if y.ndim == 4 else ops.expand_dims(y, 1)


def _output(w: Any, x: Any, embedded_timestep: Any, grid: tuple[int, int], size: int) -> Any:
    """(B, F, S, D) -> (B, C, F, H, W) in float32, whatever the weights are in."""
    shift, scale = _modulation(w["scale_shift_table"], ops.tile(embedded_timestep, (1, 2)))
    y = linear(w, "proj_out", modulate(layer_norm(x, OUTPUT_EPS), scale, shift))
    batch, frames, _, width = y.shape
    rows, columns = grid
    channels = width // size**2
    y = ops.transpose(ops.reshape(y, (batch * frames * rows, columns, size, size, channels)), (0, 4, 2, 1, 3))
    y = ops.reshape(y, (batch, frames, rows, channels, size * columns * size))
    y = ops.transpose(y, (0, 3, 1, 2, 4))  # (B, C, F, rows, size*W)
    return ops.reshape(y, (batch, channels, frames, rows * size, columns * size)).astype(ms.float32)


def _text_bias(w: Any, mask: Any) -> Any:
    """(B, L) or (B, 1+N, L), 1 = keep -> what is added to the scores, (B, 1+N, L)."""
    bias = (1.0 - mask) * MASKED
    return bias if bias.ndim == 3 else ops.expand_dims(bias, 1)


def _latent_bias(w: Any, mask: Any, size: int) -> Any:
    """(B, F, H, W), 1 = keep -> what is added to the scores, (B*F, keys): a key of size x size latents is kept if any of them is."""
    batch, frames, height, width = mask.shape
    rows, columns = height // size, width // size
    kept = ops.reshape(mask, (batch * frames, height, width))[:, : rows * size, : columns * size]
    kept = ops.reshape(kept, (batch * frames * rows, size, columns, size))
    kept = ops.amax(ops.amax((kept != 0).astype(ms.float32), 3), 1)
    return (1.0 - ops.reshape(kept, (batch * frames, rows * columns))) * MASKED


text_bias = Block(_text_bias)
latent_bias = Block(_latent_bias)
patches = Block(_patches)
timesteps = Block(_timesteps)
captions = Block(_captions)
text_keys_values = Block(_text_keys_values)
spatial = Block(_spatial)
add_frame_positions = Block(_add_frame_positions)
temporal = Block(_temporal)
output = Block(_output)
