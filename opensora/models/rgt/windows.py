"""Which pixels lie in which window, as tables on the host."""

from typing import NamedTuple

import numpy as np


class Windows(NamedTuple):
    """A division of H x W pixels into n windows of N places.

    places: (n * N,), the pixel of each place, H * W where the window reaches beyond the image. back: (H *
    W,), the place of each pixel. regions: (n, N); places of different regions do not see each other; None if
    all of a window do.
    """

    places: np.ndarray
    back: np.ndarray
    regions: np.ndarray | None


def windows(height: int, width: int, sides: tuple[int, int], is_shifted: bool) -> Windows:
    """Windows of sides (h, w), moved by half of them if shifted: then they go on at the other side of the
    image.

    The image ends at multiples of the longer side, as in the reference.
    """
    step = max(sides)
    high, wide = height + -height % step, width + -width % step
    pixels = np.full((high, wide), height * width, np.int32)
    pixels[:height, :width] = np.arange(height * width).reshape(height, width)
    shift = (sides[0] // 2, sides[1] // 2)
    if is_shifted:
        pixels = np.roll(pixels, (-shift[0], -shift[1]), (0, 1))
    places = _divided(pixels, sides)
    back = np.empty(height * width + 1, np.int32)
    back[places] = np.arange(places.size)
    regions = None
    if is_shifted:
        rows, columns = (_region(*args) for args in zip((high, wide), sides, shift, strict=True))
        regions = _divided(3 * rows[:, None] + columns, sides).reshape(-1, sides[0] * sides[1])
        regions = regions.astype(np.float32)
    return Windows(places, back[:-1], regions)


def _region(size: int, side: int, shift: int) -> np.ndarray:
    """0 up to the last window, then 1, and 2 for what comes from the other side: (size,)."""
    places = np.arange(size)
    return (places >= size - side).astype(np.int32) + (places >= size - shift)


def _divided(table: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
    """(H, W) -> (n * N,), window after window."""
    (height, width), (h, w) = table.shape, sides
    return table.reshape(height // h, h, width // w, w).transpose(0, 2, 1, 3).reshape(-1)


def offsets(sides: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """All offsets between places of a window, float32 ((2h - 1)(2w - 1), 2), and which one each pair has (N *
    N,).
    """
    h, w = sides
    table = np.indices((2 * h - 1, 2 * w - 1), np.float32).reshape(2, -1).T - (h - 1, w - 1)
    y, x = np.indices(sides).reshape(2, -1)  # (N,) each
    pairs = (y[:, None] - y + h - 1) * (2 * w - 1) + x[:, None] - x + w - 1
    return table.astype(np.float32), pairs.reshape(-1).astype(np.int32)
