"""Resampling of images (N, C, H, W)."""

import numpy as np

from opensora.engine.tensor import Tensor
from opensora.runtime import mindspore

ms = mindspore()
ops = ms.ops
TAPS = 4  # pixels along each axis from which a bicubic one is computed
SHARPNESS = -0.75


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


def resize_bicubic(image: Tensor, height: int, width: int) -> Tensor:
    """Bicubic (Keys, 1981, with a = -0.75), without smoothing before a reduction; border pixels go on."""
    return _along(_along(image, height, 2), width, 3)


def _along(image: Tensor, size: int, axis: int) -> Tensor:
    places, shares = _taps(image.shape[axis], size, axis)
    found = [shares[tap] * ops.gather(image, places[tap], axis) for tap in range(TAPS)]
    return found[0] + found[1] + found[2] + found[3]


@ops.constexpr
def _taps(size: int, new_size: int, axis: int) -> tuple[Tensor, Tensor]:
    places, shares = bicubic_taps(size, new_size)
    return ms.Tensor(places), ms.Tensor(shares.reshape(TAPS, new_size, *(1,) * (3 - axis)))


def bicubic_taps(size: int, new_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixels that each of `new_size` is made of, out of `size`, and their shares: (4, new_size) each."""
    centres = (np.arange(new_size) + 0.5) * (size / new_size) - 0.5
    first = np.floor(centres) - 1
    offsets = np.arange(TAPS)[:, None]
    distance = np.abs(centres - first - offsets)
    near = ((SHARPNESS + 2) * distance - (SHARPNESS + 3)) * distance**2 + 1
    far = SHARPNESS * (((distance - 5) * distance + 8) * distance - 4)
    shares = np.where(distance <= 1, near, far).astype(np.float32)
    return np.clip(first + offsets, 0, size - 1).astype(np.int32), shares


def pixel_shuffle(x: Tensor, factor: int) -> Tensor:
    """(N, C * factor**2, H, W) -> (N, C, factor * H, factor * W): channel c * factor**2 + factor * y + x is
    the pixel (y, x) of a block (arXiv:1609.05158).
    """
    rows, channels, height, width = x.shape
    channels //= factor**2
    x = ops.reshape(x, (rows * channels, factor, factor, height, width))
    x = ops.transpose(x, (0, 3, 1, 4, 2))  # (N * C, H, factor, W, factor)
    return ops.reshape(x, (rows, channels, factor * height, factor * width))


def halve(image: Tensor) -> Tensor:
    """Means of 2x2 pixels: (N, C, H, W) -> (N, C, H // 2, W // 2)."""
    return ops.avg_pool2d(image, 2, 2)


def upconv2d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Transposed convolution with 4x4 kernels (in, out, 4, 4) that doubles height and width."""
    rows, _, height, width = x.shape
    channels = weight.shape[1]
    convolve = ops.Conv2DTranspose(channels, 4, "pad", 1, stride=2)
    return ops.bias_add(convolve(x, weight, (rows, channels, 2 * height, 2 * width)), bias)
