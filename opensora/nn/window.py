"""Padding and strides of a convolution."""

from typing import NamedTuple

Padding = tuple[int, int, int, int]
"""Zeros at the top, bottom, left and right, which the convolution adds itself.

`ops.pad` is not used: the CPU kernel of its gradient can loop for ever.
"""


class ConvWindow(NamedTuple):
    """The padding of frames, and the strides of rows and columns, and of frames."""

    padding: Padding = (1, 1, 1, 1)
    stride: int = 1
    time_stride: int = 1


SAME = ConvWindow()
"""Keeps the size under a kernel of 3x3."""
UNPADDED = ConvWindow((0, 0, 0, 0))


def around(kernel: int, stride: int = 1) -> ConvWindow:
    """The window under whose kernel, of an odd size, every pixel is the middle once; then strides."""
    edge = kernel // 2
    return ConvWindow((edge, edge, edge, edge), stride)
