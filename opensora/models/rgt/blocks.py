"""The blocks of RGT, pure functions of their weights. Pixels are tokens (1, H*W, D), row by row."""

from opensora.engine.block import Block, Weights
from opensora.engine.tensor import Tensor
from opensora.models.enlargement import mixed
from opensora.nn import F
from opensora.nn.window import ConvWindow, around

EPS = 1e-5
APART = -100.0  # the bias between places that do not see each other
REDUCING = ConvWindow((0, 0, 0, 0), 4)
MEAN = (0.4488, 0.4371, 0.4040)  # of the published training pictures, RGB
Branch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]
"""places, back, offsets, pairs and regions of a kind of windows; see `windows`."""


def convolve(w: Weights, name: str, x: Tensor) -> Tensor:
    weight = w[f"{name}.weight"]
    return F.conv2d(x, weight, w[f"{name}.bias"], around(weight.shape[2]))


def convolve_depthwise(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.depthwise_conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"])


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, EPS) * w[f"{name}.weight"] + w[f"{name}.bias"]


def as_image(x: Tensor, height: int, width: int) -> Tensor:
    """(B, H*W, D) -> (B, D, H, W)."""
    return F.reshape(F.transpose(x, (0, 2, 1)), (x.shape[0], x.shape[2], height, width))


def as_tokens(x: Tensor) -> Tensor:
    """(B, D, H, W) -> (B, H*W, D)."""
    batch, channels, height, width = x.shape
    return F.transpose(F.reshape(x, (batch, channels, height * width)), (0, 2, 1))


@Block
def first(w: Weights, images: Tensor, mean: Tensor) -> Tensor:
    """(1, 3, H, W) in 0..1 -> (1, D, H, W)."""
    return convolve(w, "conv_first", images - mean)


@Block
def begin(w: Weights, x: Tensor) -> Tensor:
    """(1, D, H, W) -> (1, H*W, D)."""
    return norm(w, "1", as_tokens(x))


@Block
def local_block(w: Weights, x: Tensor, height: int, width: int, heads: int, *tables: Tensor | None) -> Tensor:
    """Attention within rectangular windows, lying ones for half of the channels, standing ones for the
    others.

    tables: a `Branch` for each of both.
    """
    half, branch_heads = x.shape[2] // 2, heads // 2
    y = F.linear(w, "attn.qkv", norm(w, "norm1", x))  # (1, H*W, 3 * D)
    seen = []
    for branch in (0, 1):
        parts = [y[:, :, (2 * i + branch) * half : (2 * i + branch + 1) * half] for i in (0, 1, 2)]
        own = tables[5 * branch : 5 * branch + 5]
        seen.append(windowed(w, f"attn.attns.{branch}", parts, branch_heads, *own))
    values = as_image(y[:, :, 4 * half :], height, width)
    attended = F.concat(seen, 2) + as_tokens(convolve_depthwise(w, "attn.get_v", values))
    return rest(w, x, F.linear(w, "attn.proj", attended), height, width)


def windowed(
    w: Weights,
    name: str,
    parts: list[Tensor],
    heads: int,
    places: Tensor,
    back: Tensor,
    offsets: Tensor,
    pairs: Tensor,
    regions: Tensor | None,
) -> Tensor:
    """Attention in windows of N places, of queries, keys and values (1, L, d): (1, L, d)."""
    length, depth = parts[0].shape[1:]
    table = offset_biases(w, f"{name}.pos", offsets)  # (number of offsets, heads)
    size = int(pairs.shape[0] ** 0.5 + 0.5)
    biases = F.reshape(F.gather(table, pairs, 0), (size, size, heads))
    bias = F.expand_dims(F.transpose(biases, (2, 0, 1)), 0)  # (1, heads, N, N)
    if regions is not None:
        difference = F.expand_dims(regions, 2) - F.expand_dims(regions, 1)  # (n, N, N)
        bias = bias + F.expand_dims(APART * F.clamp(difference * difference, 0.0, 1.0), 1)
    divided = []
    for part in parts:
        # Beyond the image there are zeros, which are seen.
        padded = F.concat((part, 0.0 * part[:, :1]), 1)
        rows = F.reshape(F.gather(padded, places, 1), (-1, size, depth))  # (n, N, d)
        divided.append(F.split_heads(rows, heads))
    seen = F.merge_heads(F.attention(*divided, bias))  # (n, N, d)
    rows = F.reshape(seen, (1, seen.shape[0] * size, depth))
    return F.reshape(F.gather(rows, back, 1), (1, length, depth))


def offset_biases(w: Weights, name: str, offsets: Tensor) -> Tensor:
    """A bias for every offset and head, by a small network (CrossFormer, arXiv:2108.00154)."""
    x = F.linear(w, f"{name}.pos_proj", offsets)
    for step in ("pos1", "pos2", "pos3"):
        x = F.linear(w, f"{name}.{step}.2", F.relu(norm(w, f"{name}.{step}.0", x)))
    return x


@Block
def global_block(
    w: Weights, x: Tensor, height: int, width: int, heads: int, times: int, scale: float
) -> Tensor:
    """Attention of all pixels to a small image, which the same convolution reduces `times` times."""
    y = norm(w, "norm1", x)
    small = as_image(y, height, width)
    for _ in range(times):
        small = F.depthwise_conv2d(small, w["attn.reduction1.weight"], w["attn.reduction1.bias"], REDUCING)
    rows, columns = small.shape[2:]
    small = as_tokens(convolve(w, "attn.conv", convolve_depthwise(w, "attn.dwconv", small)))
    small = F.gelu_erf(norm(w, "attn.norm_act.0", small))
    value = F.linear(w, "attn.v", small)
    value = value + as_tokens(convolve_depthwise(w, "attn.cpe", as_image(value, rows, columns)))
    query, key = F.linear(w, "attn.q", y), F.linear(w, "attn.k", small)
    split = [F.split_heads(part, heads) for part in (query, key, value)]
    attended = F.merge_heads(F.attention(*split, None, scale))
    return rest(w, x, F.linear(w, "attn.proj", attended), height, width)


def rest(w: Weights, x: Tensor, attended: Tensor, height: int, width: int) -> Tensor:
    """The rest of every block after attention: the feed-forward, one half of it gated by the other."""
    y = x + attended
    hidden = F.gelu_erf(F.linear(w, "mlp.fc1", norm(w, "norm2", y)))
    half = hidden.shape[2] // 2
    gate = as_image(norm(w, "mlp.sg.norm", hidden[:, :, half:]), height, width)
    gated = hidden[:, :, :half] * as_tokens(convolve_depthwise(w, "mlp.sg.conv", gate))
    return y + F.linear(w, "mlp.fc2", gated) + w["gamma"] * x


@Block
def end_group(w: Weights, x: Tensor, before: Tensor, height: int, width: int) -> Tensor:
    return before + as_tokens(convolve(w, "conv", as_image(x, height, width)))


@Block
def end(w: Weights, x: Tensor, before: Tensor) -> Tensor:
    """The features (1, D, H, W), added to those from before the groups."""
    height, width = before.shape[2:]
    return before + convolve(w, "conv_after_body", as_image(norm(w, "norm", x), height, width))


@Block
def upsample(
    w: Weights, x: Tensor, images: Tensor, mean: Tensor, steps: tuple[int, ...], factor: int, strength: float
) -> Tensor:
    """(1, D, H, W) -> (1, 3, factor * H, factor * W)."""
    x = F.leaky_relu(convolve(w, "conv_before_upsample.0", x), 0.01)
    for number, step in enumerate(steps):
        x = F.pixel_shuffle(convolve(w, f"upsample.{2 * number}", x), step)
    return mixed(convolve(w, "conv_last", x) + mean, images, factor, strength)
