"""Convolutions of frames-first videos (T*B, C, H, W), time outermost, so that a shift in time is a cheap slice of rows.

Weights are named as in the release files: `<name>.weight` and `<name>.bias`.
"""

from typing import Any

from opensora.runtime import mindspore

ops = mindspore().ops


def conv2d(weights: Any, name: str, x: Any, stride: int = 1, padding: int = 1) -> Any:
    """Convolution of every frame by itself."""
    y = ops.conv2d(x, weights[name + ".weight"], None, stride, "pad", padding)
    return ops.bias_add(y, weights[name + ".bias"])


def causal_conv3d(weights: Any, name: str, x: Any, batch: int, time_stride: int = 1, stride: int = 1, padding: int = 1) -> Any:
    """3-D convolution that sees no later frame: the first frame is repeated before the video (T -> ceil(T / time_stride) for 3 taps).

    Computed as the sum over the time taps of 2-D convolutions, which is the faster form on a CPU.
    """
    kernel = ops.transpose(weights[name + ".weight"], (2, 0, 1, 3, 4))  # (taps, out, in, kh, kw)
    taps = kernel.shape[0]
    if taps == 1:
        y = ops.conv2d(x, kernel[0], None, stride, "pad", padding)
    elif x.shape[0] == batch:
        # One frame: every tap sees it.
        y = ops.conv2d(x, ops.sum(kernel, 0), None, stride, "pad", padding)
    else:
        padded = repeat_first_frame(x, batch, taps - 1)
        y = ops.conv2d(time_tap(padded, batch, 0, taps, time_stride), kernel[0], None, stride, "pad", padding)
        for tap in range(1, taps):
            y = y + ops.conv2d(time_tap(padded, batch, tap, taps, time_stride), kernel[tap], None, stride, "pad", padding)
    return ops.bias_add(y, weights[name + ".bias"])


def repeat_first_frame(x: Any, batch: int, times: int) -> Any:
    """(T*B, C, H, W) -> ((times + T)*B, C, H, W)."""
    first = x[:batch]
    return ops.concat((first,) * times + (x,), 0)


def time_tap(padded: Any, batch: int, tap: int, taps: int, time_stride: int) -> Any:
    """The frames that one tap of a time kernel reads, in output order: (T'*B, C, H, W)."""
    frames = padded.shape[0] // batch
    outputs = (frames - taps) // time_stride + 1
    if time_stride == 1:
        return padded[tap * batch : (tap + outputs) * batch]
    # Strided slices want the time alone on the first axis.
    by_frame = ops.reshape(padded, (frames, batch * padded.shape[1], padded.shape[2], padded.shape[3]))
    return ops.reshape(by_frame[tap : tap + time_stride * (outputs - 1) + 1 : time_stride], (outputs * batch, *padded.shape[1:]))
