"""Resampling of images (N, C, H, W)."""

import numpy as np

from opensora.engine.tensor import Tensor
from opensora.runtime import mindspore

ms = mindspore()
ops = ms.ops


def sample(image: Tensor, x: Tensor, y: Tensor, border: bool = False) -> Tensor:
    """Bilinear samples (N, C, h, w) of images (N, C, H, W).

    x, y: positions (N, h, w) in pixels from the centre of the first pixel. border: outside of the image are
    the pixels of its border, else zeros.
    """
    height, width = image.shape[2:]
    # The range [-1, 1] spans the image from edge to edge, so that an image of one pixel has a scale too.
    grid = ops.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), -1)
    return ops.grid_sample(image, grid, "bilinear", "border" if border else "zeros", False)


def pixel_grid(height: int, width: int) -> Tensor:
    """The positions x and y of all pixels: (1, 2, height, width)."""
    return _grid(height, width)


@ops.constexpr
def _grid(height: int, width: int) -> Tensor:
    return ms.Tensor(np.indices((height, width), np.float32)[None, ::-1].copy())


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, without smoothing before a reduction; the image's edges stay where they are."""
    return ops.interpolate(image, size=(height, width), mode="bilinear", align_corners=False)


def halve(image: Tensor) -> Tensor:
    """Means of 2x2 pixels: (N, C, H, W) -> (N, C, H // 2, W // 2)."""
    return ops.avg_pool2d(image, 2, 2)


def upconv2d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Transposed convolution with 4x4 kernels (in, out, 4, 4) that doubles height and width."""
    rows, _, height, width = x.shape
    channels = weight.shape[1]
    convolve = ops.Conv2DTranspose(channels, 4, "pad", 1, stride=2)
    return ops.bias_add(convolve(x, weight, (rows, channels, 2 * height, 2 * width)), bias)
