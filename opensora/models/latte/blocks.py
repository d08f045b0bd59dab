"""The blocks of LatteT2V: pure functions of their weights, compiled once and shared by all layers.

Tokens are (B, F, S, D): F frames (T of the video, then N images), S patches of a frame with rows first, D
channels. Tensors reach a compiled block one by one and are grouped inside it; a tuple among its inputs holds
constants.
"""

from opensora.engine.block import Block, Weights
from opensora.models.latte.attention import cross_attention, frame_attention, frame_heads, time_attention
from opensora.nn import F, Tensor

MASKED = -10000.0
"""Added to the scores of masked keys."""
OUTPUT_EPS = 1e-6


@Block
def spatial(
    w: Weights,
    x: Tensor,
    conditioning: Tensor,
    keys: Tensor,
    values: Tensor,
    text_bias: Tensor,
    latent_bias: Tensor,
    cos: Tensor,
    sin: Tensor,
    sizes: tuple[tuple[int, int], int, float],
) -> Tensor:
    """Self-attention within each frame, cross-attention to the text, feed-forward: (B, F, S, D) -> same.

    conditioning: (B, 6*D). keys, values: (B, 1+N, heads, L, d), or None for a network without text.
    text_bias: (B, 1+N, L) or None.
    latent_bias: (B*F, keys) or None. cos, sin: (S, d) or None. sizes: (grid, heads, eps).
    """
    text, rotation = (keys, values, text_bias), (cos, sin)
    grid, heads, eps = sizes
    shift, scale, gate, shift_ff, scale_ff, gate_ff = modulation(w["scale_shift_table"], conditioning)
    y = F.modulate(F.layer_norm(x, eps), scale, shift)
    x = F.add_gated(x, gate, frame_attention(w, y, latent_bias, rotation, grid, heads))
    if keys is not None:
        x = F.add_residual(x, cross_attention(w, x, text))
    return F.add_gated(x, gate_ff, feed_forward(w, F.modulate(F.layer_norm(x, eps), scale_ff, shift_ff)))


@Block
def temporal(
    w: Weights,
    x: Tensor,
    conditioning: Tensor,
    cos: Tensor,
    sin: Tensor,
    sizes: tuple[int, int, float],
) -> Tensor:
    """Self-attention of each patch over the frames of the video, feed-forward: (B, F, S, D) -> same.

    Images pass through. conditioning: (B, 6*D). cos, sin: (T, d) or None. sizes: (T, heads, eps).
    """
    frames, heads, eps = sizes
    shift, scale, gate, shift_ff, scale_ff, gate_ff = modulation(w["scale_shift_table"], conditioning)
    video = x[:, :frames]
    y = F.modulate(F.layer_norm(video, eps), scale, shift)
    video = F.add_gated(video, gate, time_attention(w, y, (cos, sin), heads))
    y = F.modulate(F.layer_norm(video, eps), scale_ff, shift_ff)
    return with_images(F.add_gated(video, gate_ff, feed_forward(w, y)), x)


@Block
def embed_patches(w: Weights, latents: Tensor, positions: Tensor) -> Tensor:
    """Latents (B, C, F, H, W) and positions (S, D) -> tokens (B, F, S, D).

    The convolution of the release has stride = kernel: it is a product with each patch's numbers.
    """
    kernel = w["proj.weight"]  # (D, C, p, p)
    width, channels, size, _ = kernel.shape
    batch, _, frames, height, columns = latents.shape
    rows, columns = height // size, columns // size
    x = F.transpose(latents.astype(kernel.dtype), (0, 2, 3, 1, 4))  # (B, F, H, C, W)
    x = F.transpose(F.reshape(x, (batch * frames * rows, size, channels, columns, size)), (0, 3, 2, 1, 4))
    x = F.reshape(x, (batch * frames * rows * columns, channels * size * size))
    x = F.product(x, F.reshape(kernel, (width, channels * size * size)))
    x = F.reshape(F.bias_add(x, w["proj.bias"]), (batch, frames, rows * columns, width))
    table = F.reshape(F.stop_gradient(positions), (1, 1, rows * columns, width)).astype(x.dtype)
    return x + F.tile(table, (batch, frames, 1, 1))


@Block
def add_frame_positions(w: Weights, x: Tensor, positions: Tensor) -> Tensor:
    """Add positions (T, D) to the frames of the video in x (B, F, S, D)."""
    frames, width = positions.shape
    table = F.reshape(F.stop_gradient(positions), (1, frames, 1, width)).astype(x.dtype)
    # Tiled, because operators that broadcast keep large index tables on a CPU.
    table = F.tile(table, (x.shape[0], 1, x.shape[2], 1))
    return with_images(x[:, :frames] + table, x)


@Block
def embed_timestep(w: Weights, embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Sinusoids (B, 256) -> the embedded timestep (B, D) and the conditioning that all blocks share (B, 6*D).

    This is adaLN-single (PixArt-alpha, arXiv:2310.00426, section 2.3).
    """
    return F.precisely(_embed_timestep, w, embedding)


def _embed_timestep(w: Weights, embedding: Tensor) -> tuple[Tensor, Tensor]:
    embedding = F.stop_gradient(embedding).astype(w["linear.bias"].dtype)
    y = F.linear(w, "emb.timestep_embedder.linear_1", embedding)
    y = F.linear(w, "emb.timestep_embedder.linear_2", F.silu(y))
    return y, F.linear(w, "linear", F.silu(y))


@Block
def embed_text(w: Weights, text_embeds: Tensor) -> Tensor:
    """(B, L, C) or (B, 1+N, L, C) -> (B, 1+N, L, D)."""
    text_embeds = text_embeds.astype(w["caption_projection.linear_1.bias"].dtype)
    y = F.linear(
        w, "caption_projection.linear_2", F.gelu(F.linear(w, "caption_projection.linear_1", text_embeds))
    )
    return y if y.ndim == 4 else F.expand_dims(y, 1)


@Block
def text_keys_values(w: Weights, text: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """(B, 1+N, L, D) -> keys and values, each (B, 1+N, heads, L, d)."""
    batch, captions, length, _ = text.shape
    keys, values = F.linear(w, "to_k", text), F.linear(w, "to_v", text)
    shape = (batch, captions, heads, length, keys.shape[-1] // heads)
    return F.reshape(frame_heads(keys, heads), shape), F.reshape(frame_heads(values, heads), shape)


@Block
def key_bias(w: Weights, mask: Tensor) -> Tensor:
    """Mask of the keys, 1 = keep -> bias of the scores, of the same shape."""
    return (1.0 - mask.astype(F.float32)) * MASKED


@Block
def text_bias(w: Weights, mask: Tensor) -> Tensor:
    """Mask (B, L) or (B, 1+N, L), 1 = keep -> bias of the scores (B, 1+N, L)."""
    bias = key_bias.function(w, mask)
    return bias if bias.ndim == 3 else F.expand_dims(bias, 1)


@Block
def latent_bias(w: Weights, mask: Tensor, size: int) -> Tensor:
    """Mask (B, F, H, W), 1 = keep -> bias of the scores (B*F, keys).

    A key stands for size x size latents, and is kept if any of them is.
    """
    batch, frames, height, width = mask.shape
    rows, columns = height // size, width // size
    kept = F.reshape(mask, (batch * frames, height, width))[:, : rows * size, : columns * size]
    kept = F.reshape(kept, (batch * frames * rows, size, columns, size))
    kept = F.amax(F.amax((kept != 0).astype(F.float32), 3), 1)
    return (1.0 - F.reshape(kept, (batch * frames, rows * columns))) * MASKED


@Block
def output(
    w: Weights, x: Tensor, embedded_timestep: Tensor, grid: tuple[int, int], patch_size: int
) -> Tensor:
    """Tokens (B, F, S, D) -> latents (B, C, F, H, W) in float32, whatever the weights are in."""
    return F.precisely(_output, w, x, embedded_timestep, grid, patch_size)


def _output(
    w: Weights, x: Tensor, embedded_timestep: Tensor, grid: tuple[int, int], patch_size: int
) -> Tensor:
    shift, scale = modulation(w["scale_shift_table"], F.tile(embedded_timestep, (1, 2)))
    y = F.linear(w, "proj_out", F.modulate(F.layer_norm(x, OUTPUT_EPS), scale, shift))  # (B, F, S, p*p*C)
    return unpatchify(y, grid, patch_size)


def unpatchify(y: Tensor, grid: tuple[int, int], patch_size: int) -> Tensor:
    """Tokens (B, F, S, p*p*C) -> latents (B, C, F, H, W) in float32."""
    batch, frames, _, width = y.shape
    rows, columns = grid
    size, channels = patch_size, width // patch_size**2
    y = F.transpose(F.reshape(y, (batch * frames * rows, columns, size, size, channels)), (0, 4, 2, 1, 3))
    y = F.reshape(y, (batch, frames, rows, channels, size * columns * size))
    y = F.transpose(y, (0, 3, 1, 2, 4))  # (B, C, F, rows, p*W)
    return F.reshape(y, (batch, channels, frames, rows * size, columns * size)).astype(F.float32)


@Block
def noise_of_velocity(w: Weights, x: Tensor, latents: Tensor, levels: Tensor) -> Tensor:
    """Velocity and logits (B, 2C, F, H, W) -> noise and logits.

    Latents are signal x0 + noise eps, with levels = (signal, noise) of each sample (B, 2), and the velocity
    is signal eps - noise x0 (arXiv:2202.00512, appendix D). So eps = signal velocity + noise latents.
    """
    return F.precisely(_noise_of_velocity, x, latents, levels)


def _noise_of_velocity(x: Tensor, latents: Tensor, levels: Tensor) -> Tensor:
    channels = latents.shape[1]
    signal, noise = F.unstacked(F.reshape(F.transpose(levels, (1, 0)), (2, -1, 1, 1, 1, 1)))
    predicted = signal * x[:, :channels] + noise * latents.astype(F.float32)
    return F.concat((predicted, x[:, channels:]), 1)


def modulation(table: Tensor, conditioning: Tensor) -> Tensor:
    """A table (n, D) plus conditioning (B, n*D) -> n parts (B, 1, 1, D): shifts, scales and gates."""
    return F.precisely(_modulation, table, conditioning)


def _modulation(table: Tensor, conditioning: Tensor) -> Tensor:
    parts, width = table.shape
    return for_tokens(F.expand_dims(table, 0) + F.reshape(conditioning, (-1, parts, width)))


def for_tokens(parts: Tensor) -> Tensor:
    """n vectors of each sample (B, n, D) -> n parts (B, 1, 1, D), for tokens (B, F, S, D)."""
    batch, count, width = parts.shape
    return F.unstacked(F.reshape(F.transpose(parts, (1, 0, 2)), (count, batch, 1, 1, width)))


def feed_forward(w: Weights, x: Tensor) -> Tensor:
    """Two linear maps with a GELU between them, (..., D) -> (..., D)."""
    return F.linear(w, "ff.net.2", F.gelu(F.linear(w, "ff.net.0.proj", x)))


def with_images(video: Tensor, x: Tensor) -> Tensor:
    """The video (B, T, S, D), followed by the images of x (B, T+N, S, D)."""
    frames = video.shape[1]
    return video if frames == x.shape[1] else F.concat((video, x[:, frames:]), 1)
