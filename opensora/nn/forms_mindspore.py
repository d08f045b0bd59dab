"""The functions of `F` on MindSpore: those of this package, and the framework's own operators."""

from opensora.engine.tensor import Tensor
from opensora.nn.activations import gelu, gelu_erf, leaky_relu, log, prelu, quick_gelu, sigmoid, silu
from opensora.nn.attention import attention, merge_heads, split_heads
from opensora.nn.convolution import (
    causal_conv3d,
    conv2d,
    depthwise_conv2d,
    double_frames,
    double_pixels,
    from_frames,
    repeat_first_frame,
    sum_over_taps,
    time_tap,
    time_upsampling_conv,
    to_frames,
    upsampling_conv,
)
from opensora.nn.images import (
    halve,
    pixel_grid,
    pixel_shuffle,
    resize,
    resize_bicubic,
    sample,
    upconv2d,
)
from opensora.nn.linear import linear
from opensora.nn.modulation import add_gated, add_residual, modulate, precisely, unstacked
from opensora.nn.normalisation import group_norm, layer_norm, normalise_channels, rms_norm
from opensora.nn.permute import permute
from opensora.runtime import mindspore

ms = mindspore()
ops = ms.ops
float32 = ms.float32

__all__ = [
    "add_gated",
    "add_residual",
    "attention",
    "causal_conv3d",
    "conv2d",
    "depthwise_conv2d",
    "double_frames",
    "double_pixels",
    "from_frames",
    "gelu",
    "gelu_erf",
    "group_norm",
    "halve",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log",
    "merge_heads",
    "modulate",
    "normalise_channels",
    "permute",
    "pixel_grid",
    "pixel_shuffle",
    "precisely",
    "prelu",
    "quick_gelu",
    "repeat_first_frame",
    "resize",
    "resize_bicubic",
    "rms_norm",
    "sample",
    "sigmoid",
    "silu",
    "split_heads",
    "sum_over_taps",
    "time_tap",
    "time_upsampling_conv",
    "to_frames",
    "unstacked",
    "upconv2d",
    "upsampling_conv",
]

abs = ops.abs
amax = ops.amax
bias_add = ops.bias_add
broadcast_to = ops.broadcast_to
chunk = ops.chunk
clamp = ops.clamp
concat = ops.concat
exp = ops.exp
expand_dims = ops.expand_dims
gather = ops.gather
maximum = ops.maximum
mean = ops.mean
relu = ops.relu
reshape = ops.reshape
sqrt = ops.sqrt
stack = ops.stack
stop_gradient = ops.stop_gradient
sum = ops.sum
tile = ops.tile
transpose = ops.transpose
where = ops.where


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x W^T of matrices (rows, in) and (out, in): (rows, out); or of as many of them, (n, rows, out)."""
    if x.ndim > 2:
        return ops.BatchMatMul(transpose_b=True)(x, weight)
    return ops.MatMul(transpose_b=True)(x, weight)
