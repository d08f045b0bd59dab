"""The functions of `F` as nodes of an OpenVINO graph.

Their docstrings are those of `forms_mindspore` and the files that it imports from.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import add

import numpy as np

from opensora.engine.graph import (
    Node,
    Operand,
    Operator,
    Output,
    integers,
    is_precise,
    openvino,
    opset,
    stopped,
)
from opensora.engine.graph import precisely as in_float32
from opensora.engine.tree import Tree
from opensora.nn.frames_openvino import FramesNode, as_video, concat_frames
from opensora.nn.images_openvino import (
    halve,
    pixel_grid,
    pixel_shuffle,
    resize,
    resize_bicubic,
    sample,
    upconv2d,
)
from opensora.nn.window import SAME, ConvWindow

__all__ = ["halve", "pixel_grid", "pixel_shuffle", "resize", "resize_bicubic", "sample", "upconv2d"]

o = opset()
float32 = openvino().Type.f32


def _node(operator: Operator) -> Node:
    return Node(operator.output(0))


# --- the framework's own operators, under MindSpore's names ---


def reshape(x: Node, shape: Sequence[int]) -> Node:
    return _node(o.reshape(x.output, integers(shape), False))


def transpose(x: Node, axes: Sequence[int]) -> Node:
    return _node(o.transpose(x.output, integers(axes)))


permute = transpose


def concat(parts: Sequence[Node], axis: int = 0) -> Node:
    frames = concat_frames(parts) if axis == 0 else None
    return _joined(parts, axis) if frames is None else frames


def _joined(parts: Sequence[Node], axis: int) -> Node:
    return _node(o.concat([part.output for part in parts], axis))


def stack(parts: Sequence[Node], axis: int = 0) -> Node:
    return _joined([expand_dims(part, axis) for part in parts], axis)


def expand_dims(x: Node, axis: int) -> Node:
    return _node(o.unsqueeze(x.output, integers([axis])))


def tile(x: Node, repeats: Sequence[int]) -> Node:
    return _node(o.tile(x.output, integers(repeats)))


def broadcast_to(x: Node, shape: Sequence[int]) -> Node:
    return _node(o.broadcast(x.output, integers(shape)))


def gather(table: Node, indices: Node, axis: int) -> Node:
    return _node(o.gather(table.output, indices.output, o.constant(np.int64(axis))))


def sum(x: Node, axis: int | tuple[int, ...], keepdims: bool = False) -> Node:
    return _node(o.reduce_sum(x.output, _axes(axis), keepdims))


def mean(x: Node, axis: int | tuple[int, ...], keepdims: bool = False) -> Node:
    return _node(o.reduce_mean(x.output, _axes(axis), keepdims))


def amax(x: Node, axis: int, keepdims: bool = False) -> Node:
    return _node(o.reduce_max(x.output, _axes(axis), keepdims))


def _axes(axis: int | tuple[int, ...]) -> Operator:
    return integers(axis if isinstance(axis, tuple) else (axis,))


def chunk(x: Node, parts: int, axis: int) -> tuple[Node, ...]:
    return tuple(map(Node, o.split(x.output, o.constant(np.int64(axis)), parts).outputs()))


def abs(x: Node) -> Node:
    return x.map(o.abs)


def exp(x: Node) -> Node:
    return x.map(o.exp)


def log(x: Node) -> Node:
    return x.map(o.log)


def sqrt(x: Node) -> Node:
    return x.map(o.sqrt)


def clamp(x: Node, low: float, high: float) -> Node:
    return x.map(lambda value: o.clamp(value, low, high))


def maximum(x: Node, other: Operand) -> Node:
    return x.combine(o.maximum, other)


def where(condition: Node, x: Node, y: Node) -> Node:
    return _node(o.select(condition.output, x.output, y.output))


def stop_gradient(x: Node) -> Node:
    return stopped(x)


def product(x: Node, weight: Node) -> Node:
    return _node(o.matmul(x.output, weight.output, False, True))


def bias_add(x: Node, bias: Node) -> Node:
    """The bias is for axis 1."""
    return x + reshape(bias, (1, -1, *(1,) * (x.ndim - 2)))


# --- activations ---


def silu(x: Node) -> Node:
    return x.map(o.swish)


def sigmoid(x: Node) -> Node:
    return x.map(o.sigmoid)


def relu(x: Node) -> Node:
    return x.map(o.relu)


def prelu(x: Node, slopes: Node) -> Node:
    return x.map(lambda value: o.prelu(value, slopes.output))


def leaky_relu(x: Node, slope: float) -> Node:
    return x.map(lambda value: o.prelu(value, o.constant(np.float32(slope))))


def gelu(x: Node) -> Node:
    return x.map(lambda value: o.gelu(value, "tanh"))


def gelu_erf(x: Node) -> Node:
    return x.map(lambda value: o.gelu(value, "erf"))


def quick_gelu(x: Node) -> Node:
    return x * (1.702 * x).map(o.sigmoid)


# --- linear maps, modulation, attention ---


def linear(weights: Mapping[str, Node], name: str, x: Node) -> Node:
    y = product(x, weights[name + ".weight"])
    if name + ".bias" not in weights:
        return y
    if not is_precise():
        return y + weights[name + ".bias"]
    # A product that the library joins with its bias loses the mark. Another shape keeps them apart.
    return reshape(reshape(y, (1, *y.shape)) + weights[name + ".bias"], y.shape)


def unstacked(x: Node) -> tuple[Node, ...]:
    # The library joins slices to a split of its own, which would not stay in float32.
    return tuple(reshape(part, x.shape[1:]) for part in chunk(x, x.shape[0], 0))


def precisely(function: Callable[..., Tree], *inputs: Tree) -> Tree:
    with in_float32():
        return function(*inputs)


def modulate(x: Node, scale: Node, shift: Node) -> Node:
    with in_float32():
        return _by_token(lambda y, factor, more: y * (factor + 1.0) + more, x, scale, shift)


def add_gated(x: Node, gate: Node, y: Node) -> Node:
    with in_float32():
        return _by_token(lambda old, factor, new: old + factor * new, x, gate, y)


def add_residual(x: Node, y: Node) -> Node:
    with in_float32():
        return _by_token(add, x, y)


def _by_token(function: Callable[..., Node], x: Node, *others: Node) -> Node:
    """The function of tokens that are held as (B, F*S, D), in the shape of x.

    The library takes four axes for those of images: it would move the second one to the end and back.
    """
    rows = (reshape(part, (part.shape[0], -1, part.shape[-1])) for part in (x, *others))
    return reshape(function(*rows), x.shape)


def split_heads(x: Node, heads: int) -> Node:
    batch, length, width = x.shape
    return transpose(reshape(x, (batch, length, heads, width // heads)), (0, 2, 1, 3))


def merge_heads(x: Node) -> Node:
    batch, heads, length, width = x.shape
    return reshape(transpose(x, (0, 2, 1, 3)), (batch, length, heads * width))


def attention(
    query: Node, key: Node, value: Node, bias: Node | None = None, scale: float | None = None
) -> Node:
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores = _node(o.matmul((query * factor).output, key.output, False, True))
    scores = scores if bias is None else scores + bias
    return _node(o.matmul(o.softmax(scores.output, -1), value.output, False, False))


# --- normalisations ---


def layer_norm(x: Node, eps: float = 1e-6) -> Node:
    def normalised(rows: Node) -> Node:
        return _node(o.mvn(rows.output, integers([-1]), True, eps, "inside_sqrt"))

    with in_float32():
        return _by_token(normalised, x)


def rms_norm(x: Node, weight: Node, eps: float = 1e-6) -> Node:
    with in_float32():
        square = mean(x * x, -1, True)
        return x / (square + eps).map(o.sqrt) * weight


def group_norm(x: Node, weight: Node, bias: Node, batch: int, groups: int = 32, eps: float = 1e-6) -> Node:
    def normalised(value: Output) -> Operator:
        return o.group_normalization(value, weight.output, bias.output, groups, eps)

    if batch == x.shape[0]:
        return Node(normalised(x.output).output(0))
    return as_video(x, batch).map_video(normalised)


def normalise_channels(
    x: Node, weight: Node, bias: Node, mean: Node, variance: Node, eps: float = 1e-6
) -> Node:
    return _node(
        o.batch_norm_inference(x.output, weight.output, bias.output, mean.output, variance.output, eps)
    )


# --- convolutions of frames-first videos ---


def conv2d(x: Node, weight: Node, bias: Node | None, window: ConvWindow = SAME) -> Node:
    if isinstance(x, FramesNode):
        kernel, each = expand_dims(weight, 2), window._replace(time_stride=1)
        return x.map_video(lambda video: _convolved(video, kernel, bias, each))
    return Node(_convolved(x.output, weight, bias, window).output(0))


def depthwise_conv2d(x: Node, weight: Node, bias: Node, window: ConvWindow = SAME) -> Node:
    top, bottom, left, right = window.padding
    kernel = expand_dims(weight, 1)  # (channels, 1, 1, kh, kw)
    strides, before, after = [window.stride] * 2, [top, left], [bottom, right]
    return bias_add(_node(o.group_convolution(x.output, kernel.output, strides, before, after, [1, 1])), bias)


def causal_conv3d(x: Node, weight: Node, bias: Node, batch: int, window: ConvWindow = SAME) -> Node:
    taps = weight.shape[2]
    if taps == 1 and window.time_stride == 1:
        return conv2d(x, reshape(weight, (*weight.shape[:2], *weight.shape[3:])), bias, window)
    if x.shape[0] == batch:
        # With one frame every tap sees the same pixels.
        return conv2d(x, sum(weight, 2), bias, window)
    return _causal(repeat_first_frame(x, batch, taps - 1), weight, bias, batch, window)


def sum_over_taps(padded: Node, kernel: Node, bias: Node, batch: int, window: ConvWindow = SAME) -> Node:
    return _causal(padded, transpose(kernel, (1, 2, 0, 3, 4)), bias, batch, window)


def _causal(padded: Node, weight: Node, bias: Node, batch: int, window: ConvWindow) -> Node:
    return as_video(padded, batch).map_video(lambda video: _convolved(video, weight, bias, window))


def _convolved(x: Output, weight: Node, bias: Node | None, window: ConvWindow) -> Operator:
    """A convolution of images (N, C, H, W) or videos (B, C, T, H, W), as the kernel has axes."""
    top, bottom, left, right = window.padding
    axes = len(weight.shape) - 2
    strides = [window.time_stride, window.stride, window.stride][-axes:]
    before, after = [0, top, left][-axes:], [0, bottom, right][-axes:]
    y = o.convolution(x, weight.output, strides, before, after, [1] * axes)
    return y if bias is None else o.add(y, reshape(bias, (1, -1, *(1,) * axes)).output)


def repeat_first_frame(x: Node, batch: int, times: int) -> Node:
    x = as_video(x, batch)
    return concat((x[:batch],) * times + (x,), 0)


def time_tap(padded: Node, batch: int, tap: int, taps: int, time_stride: int) -> Node:
    video = as_video(padded, batch)
    frames = padded.shape[0] // batch
    outputs = (frames - taps) // time_stride + 1
    return video.frames(slice(tap, tap + time_stride * (outputs - 1) + 1, time_stride))


def to_frames(video: Node) -> Node:
    return FramesNode(video.output)


def from_frames(x: Node, batch: int) -> Node:
    return Node(as_video(x, batch).video)


def double_frames(x: Node, batch: int) -> Node:
    video = as_video(x, batch)
    batch, channels, frames, height, width = video.video.get_shape()
    if frames == 1:
        return video
    rest = video.frames(slice(1, None))
    before = concat((rest[:batch], rest[:-batch]), 0) if frames > 2 else rest
    after = concat((rest[batch:], rest[-batch:]), 0) if frames > 2 else rest
    pairs = (
        o.unsqueeze(as_video(part, batch).video, integers([3]))
        for part in (0.25 * before + 0.75 * rest, 0.75 * rest + 0.25 * after)
    )  # (B, C, T, 1, H, W)
    shape = integers([batch, channels, 2 * (frames - 1), height, width])
    return concat((video[:batch], FramesNode(o.reshape(o.concat(pairs, 3), shape, False).output(0))), 0)


def time_upsampling_conv(x: Node, weight: Node, bias: Node, batch: int) -> Node:
    """Each tap convolves the frames before they are interpolated, which weighs whole frames: half as many."""
    taps = weight.shape[2]

    def seen(tap: int) -> Node:
        # Interpolation keeps a constant, so the bias may be added before it.
        frames = double_frames(conv2d(x, weight[:, :, tap], bias if tap == 0 else None), batch)
        return repeat_first_frame(frames, batch, taps - 1 - tap)[: frames.shape[0]]

    return reduce(add, (seen(tap) for tap in range(taps)))


def upsampling_conv(x: Node, weight: Node, bias: Node, batch: int) -> Node:
    """Several taps read one of the doubled pixels: with their sums, a transposed convolution does the work.

    Output pixel 2i reads the pixel i - 1 by the first tap and i by the sum of the others; 2i + 1 reads i and
    i + 1. That is a kernel (w2, w1 + w2, w0 + w1, w0) along each axis.
    """
    if weight.shape[2] > 1:
        return causal_conv3d(double_pixels(x), weight, bias, batch)
    kernel = transpose(_doubling_taps(_doubling_taps(weight, 3), 4), (1, 0, 2, 3, 4))

    def convolved(video: Output) -> Operator:
        pads = [0, 1, 1]
        y = o.convolution_backprop_data(video, kernel.output, [1, 2, 2], None, pads, pads, [1, 1, 1])
        return o.add(y, reshape(bias, (1, -1, 1, 1, 1)).output)

    return as_video(x, batch).map_video(convolved)


def _doubling_taps(weight: Node, axis: int) -> Node:
    first, middle, last = chunk(weight, 3, axis)
    return _joined((last, middle + last, first + middle, first), axis)


def double_pixels(x: Node) -> Node:
    def doubled(value: Output) -> Operator:
        *rest, height, width = value.get_shape()
        axes = integers([len(rest), len(rest) + 1])
        sizes = integers([2 * height, 2 * width])
        return o.interpolate(
            value,
            sizes,
            "nearest",
            "sizes",
            axes=axes,
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    return x.map_video(doubled) if isinstance(x, FramesNode) else x.map(doubled)
