"""Normalisations; statistics are always in float32."""

from opensora import runtime
from opensora.engine.tensor import Tensor
from opensora.nn.broadcast import expand

ms = runtime.mindspore()
ops = ms.ops
ON_CPU = runtime.device() == "CPU"


def layer_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    """LayerNorm over the last axis without affine parameters (the modulation of adaLN takes their place)."""
    y = x.astype(ms.float32)
    y = y - expand(_row_mean(y), x.shape[-1])
    return (y * expand(ops.rsqrt(_row_mean(y * y) + eps), x.shape[-1])).astype(x.dtype)


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """Root-mean-square norm over the last axis (arXiv:1910.07467), as T5 uses it."""
    y = x.astype(ms.float32)
    return (y * expand(ops.rsqrt(_row_mean(y * y) + eps), x.shape[-1])).astype(x.dtype) * weight


def group_norm(
    x: Tensor, weight: Tensor, bias: Tensor, batch: int, groups: int = 32, eps: float = 1e-6
) -> Tensor:
    """GroupNorm (arXiv:1803.08494) of frames-first videos (T*B, C, H, W), time outermost.

    Statistics are pooled over the frames of each of `batch` videos; `batch` = T*B gives each frame its own.
    """
    rows, channels, height, width = x.shape
    frames = rows // batch
    shape = (frames, batch, groups, channels // groups)
    # On a CPU, a product with a vector of ones is several times faster than a mean over each row's pixels.
    ones = ops.ones((height * width, 1), ms.float32) / (height * width)
    y = ops.reshape(x.astype(ms.float32), (rows * channels, height * width))
    mean = ops.mean(ops.reshape(ops.matmul(y, ones), shape), (0, 3), True)  # (1, B, groups, 1)
    y = y - expand(_per_row(mean, shape), height * width)
    variance = ops.mean(ops.reshape(ops.matmul(y * y, ones), shape), (0, 3), True)
    scale = ops.rsqrt(variance + eps) * ops.reshape(
        weight.astype(ms.float32), (1, 1, groups, -1)
    )  # (1, B, groups, C/groups)
    shift = ops.reshape(ops.tile(bias.astype(ms.float32), (rows,)), (rows * channels, 1))
    return ops.reshape(
        y * expand(_per_row(scale, shape), height * width) + expand(shift, height * width), x.shape
    ).astype(x.dtype)


def normalise_channels(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float = 1e-6
) -> Tensor:
    """BatchNorm with known statistics: (x - mean) / sqrt(variance + eps) * weight + bias.

    x (N, C, H, W); the others (C,) float32.
    """
    return ops.BatchNorm(False, eps)(x, weight, bias, mean, variance)[0]


def _per_row(statistic: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(1, B, groups, 1 or C/groups) -> (T*B*C, 1)."""
    return ops.reshape(ops.broadcast_to(statistic, shape), (-1, 1))


def _row_mean(x: Tensor) -> Tensor:
    """The mean over the last axis: (..., D) -> (..., 1).

    On a CPU it is a product with a vector of ones, whose gradient is several times faster than a mean's.
    """
    width = x.shape[-1]
    if not ON_CPU:
        return ops.mean(x, -1, True)
    ones = ops.ones((width, 1), ms.float32) / width
    return ops.reshape(ops.MatMul()(ops.reshape(x, (-1, width)), ones), (*x.shape[:-1], 1))
