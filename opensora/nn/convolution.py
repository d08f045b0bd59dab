"""Convolutions of frames-first videos (T*B, C, H, W).

Time is the outermost axis, so a shift in time is a cheap slice of rows.
"""

from opensora.engine.tensor import Tensor
from opensora.nn.window import SAME, ConvWindow
from opensora.runtime import mindspore

ops = mindspore().ops


def conv2d(x: Tensor, weight: Tensor, bias: Tensor, window: ConvWindow = SAME) -> Tensor:
    """Convolution of every frame by itself; weight (out, in, kh, kw), bias (out,)."""
    return ops.bias_add(_convolve(x, weight, window), bias)


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor, window: ConvWindow = SAME) -> Tensor:
    """Convolution of every channel by itself; weight (channels, 1, kh, kw), bias (channels,)."""
    channels = weight.shape[0]
    convolve = ops.Conv2D(channels, weight.shape[2:], 1, "pad", window.padding, window.stride, group=channels)
    return ops.bias_add(convolve(x, weight), bias)


def _convolve(x: Tensor, weight: Tensor, window: ConvWindow) -> Tensor:
    return ops.Conv2D(weight.shape[0], weight.shape[2:], 1, "pad", window.padding, window.stride)(x, weight)


def causal_conv3d(x: Tensor, weight: Tensor, bias: Tensor, batch: int, window: ConvWindow = SAME) -> Tensor:
    """Causal 3-D convolution: the first frame is repeated before the video, T becomes ceil(T / time_stride).

    weight (out, in, taps, kh, kw). Computed as a sum of 2-D convolutions over the time taps, which is faster
    on a CPU.
    """
    kernel = ops.transpose(weight, (2, 0, 1, 3, 4))  # (taps, out, in, kh, kw)
    taps = kernel.shape[0]
    if x.shape[0] == batch:
        # With one frame every tap sees the same pixels.
        return conv2d(x, ops.sum(kernel, 0), bias, window)
    return sum_over_taps(repeat_first_frame(x, batch, taps - 1), kernel, bias, batch, window)


def sum_over_taps(
    padded: Tensor, kernel: Tensor, bias: Tensor, batch: int, window: ConvWindow = SAME
) -> Tensor:
    """3-D convolution of a video that includes the frames before it, as a sum over the time taps.

    kernel (taps, out, in, kh, kw) is the weight with time first.
    """
    taps = kernel.shape[0]
    y = conv2d(time_tap(padded, batch, 0, taps, window.time_stride), kernel[0], bias, window)
    for tap in range(1, taps):
        y = y + _convolve(time_tap(padded, batch, tap, taps, window.time_stride), kernel[tap], window)
    return y


def repeat_first_frame(x: Tensor, batch: int, times: int) -> Tensor:
    """(T*B, C, H, W) -> ((times + T)*B, C, H, W)."""
    first = x[:batch]
    return ops.concat((first,) * times + (x,), 0)


def time_tap(padded: Tensor, batch: int, tap: int, taps: int, time_stride: int) -> Tensor:
    """The frames that one tap of a time kernel reads, in the order of its outputs: (T'*B, C, H, W)."""
    frames = padded.shape[0] // batch
    outputs = (frames - taps) // time_stride + 1
    if time_stride == 1:
        return padded[tap * batch : (tap + outputs) * batch]
    by_frame = ops.reshape(padded, (frames, batch * padded.shape[1], *padded.shape[2:]))
    return ops.reshape(
        by_frame[tap : tap + time_stride * (outputs - 1) + 1 : time_stride],
        (outputs * batch, *padded.shape[1:]),
    )


def to_frames(video: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (T*B, C, H, W)."""
    return ops.reshape(ops.transpose(video, (2, 0, 1, 3, 4)), (-1, video.shape[1], *video.shape[3:]))


def from_frames(x: Tensor, batch: int) -> Tensor:
    """(T*B, C, H, W) -> (B, C, T, H, W)."""
    return ops.transpose(ops.reshape(x, (-1, batch, *x.shape[1:])), (1, 2, 0, 3, 4))


def upsampling_conv(x: Tensor, weight: Tensor, bias: Tensor, batch: int) -> Tensor:
    """`causal_conv3d` of the frames with doubled pixels."""
    return causal_conv3d(double_pixels(x), weight, bias, batch)


def double_frames(x: Tensor, batch: int) -> Tensor:
    """T -> 2T - 1: the first frame stays, the others are interpolated linearly with half-pixel centres."""
    if x.shape[0] == batch:
        return x
    rest = x[batch:]
    frames = rest.shape[0] // batch
    if frames == 1:
        return ops.concat((x, rest), 0)
    before = ops.concat((rest[:batch], rest[: (frames - 1) * batch]), 0)
    after = ops.concat((rest[batch:], rest[(frames - 1) * batch :]), 0)
    pairs = ops.stack((0.25 * before + 0.75 * rest, 0.75 * rest + 0.25 * after), 1)  # (T*B, 2, C, H, W)
    pairs = ops.transpose(ops.reshape(pairs, (frames, batch, 2, -1)), (0, 2, 1, 3))
    return ops.concat((x[:batch], ops.reshape(pairs, (2 * frames * batch, *x.shape[1:]))), 0)


def time_upsampling_conv(x: Tensor, weight: Tensor, bias: Tensor, batch: int) -> Tensor:
    """`causal_conv3d` of doubled frames."""
    return causal_conv3d(double_frames(x, batch), weight, bias, batch)


def double_pixels(x: Tensor) -> Tensor:
    """Nearest neighbour: (N, C, H, W) -> (N, C, 2H, 2W)."""
    rows, channels, height, width = x.shape
    x = ops.reshape(x, (rows, channels, height, 1, width, 1))
    x = ops.broadcast_to(x, (rows, channels, height, 2, width, 2))
    return ops.reshape(x, (rows, channels, 2 * height, 2 * width))
