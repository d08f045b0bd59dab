"""How a stored picture is turned to stand upright."""

from typing import NamedTuple

import numpy as np


class Orientation(NamedTuple):
    """Exchange rows and columns first, then mirror left to right, then top to bottom."""

    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after turning, or, as it is its own inverse, before."""
        return (width, height) if self.transposed else (height, width)

    def turn(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, 3) as stored -> upright, contiguous."""
        if self.transposed:
            pixels = pixels.swapaxes(0, 1)
        if self.mirrored:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(pixels[::-1] if self.flipped else pixels)


UPRIGHT = Orientation()
EXIF_TAG = 0x0112
EXIF = {
    1: UPRIGHT,
    2: Orientation(mirrored=True),
    3: Orientation(mirrored=True, flipped=True),
    4: Orientation(flipped=True),
    5: Orientation(transposed=True),
    6: Orientation(transposed=True, mirrored=True),
    7: Orientation(transposed=True, mirrored=True, flipped=True),
    8: Orientation(transposed=True, flipped=True),
}
"""Values of the EXIF tag Orientation (EXIF 2.3, section 4.6.4)."""


def of_display_matrix(matrix: np.ndarray) -> Orientation:
    """The nearest of the eight orientations to a video's display matrix of 9 integers [a b u c d v x y w].

    A point (x, y) is shown at (a x + c y, b x + d y) (ISO/IEC 14496-12, section 6.2.2).
    """
    a, b, _, c, d = (int(value) for value in matrix[:5])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(mirrored=a < 0, flipped=d < 0)
    return Orientation(transposed=True, mirrored=c < 0, flipped=b < 0)
