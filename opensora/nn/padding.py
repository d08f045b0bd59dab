"""How much a convolution pads an image."""

Padding = tuple[int, int, int, int]
"""Zeros at the top, bottom, left and right, which the convolution adds itself.

`ops.pad` is not used: the CPU kernel of its gradient can loop for ever.
"""
SAME: Padding = (1, 1, 1, 1)
NONE: Padding = (0, 0, 0, 0)
