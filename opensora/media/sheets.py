"""Contact sheets: many frames in one picture."""

import math

import numpy as np


def contact_sheet(frames: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Frames (T, H, W, 3) side by side, row by row -> one picture, uint8 (rows*H, columns*W, 3); empty places are white.

    Without `columns` the grid is as square as it can be.
    """
    length, height, width, _ = frames.shape
    columns = min(columns or math.ceil(math.sqrt(length)), length)
    rows = math.ceil(length / columns)
    cells = np.full((rows * columns, height, width, 3), 255, np.uint8)
    cells[:length] = frames
    return (
        cells.reshape(rows, columns, height, width, 3)
        .swapaxes(1, 2)
        .reshape(rows * height, columns * width, 3)
    )
