"""The functions that networks which enlarge images share."""

from opensora.engine.tensor import Tensor
from opensora.nn import F


def mixed(enlarged: Tensor, images: Tensor, factor: int, strength: float) -> Tensor:
    """The result (B, 3, factor * H, factor * W) of what a network made of images (B, 3, H, W).

    enlarged: (B, 3, scale * H, scale * W); for a smaller factor it is reduced. strength: the share of the
    network in the result; the rest is a plain enlargement.
    """
    height, width = factor * images.shape[2], factor * images.shape[3]
    x = enlarged
    if x.shape[2] != height:
        x = F.resize_bicubic(x, height, width)
    if strength != 1:
        x = strength * x + (1 - strength) * F.resize_bicubic(images, height, width)
    return x
