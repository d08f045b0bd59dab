"""Contact sheets: many frames in one picture."""

import math

import numpy as np

SIDE = 256
"""Pixels to which the frames of a small video are enlarged."""


def video_sheet(frames: np.ndarray) -> np.ndarray:
    """All frames (T, H, W, 3) of a video in one picture, uint8 (H, W, 3).

    Small frames are enlarged by a whole factor, to at most SIDE pixels.
    """
    factor = max(1, SIDE // max(frames.shape[1:3]))
    return contact_sheet(frames.repeat(factor, 1).repeat(factor, 2))


def contact_sheet(frames: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Arrange frames (T, H, W, 3) in rows -> one picture, uint8 (rows*H, columns*W, 3).

    Empty cells are white. The default number of columns makes the grid as square as possible.
    """
    length, height, width, _ = frames.shape
    columns = min(columns or math.ceil(math.sqrt(length)), length)
    rows = math.ceil(length / columns)
    cells = np.full((rows * columns, height, width, 3), 255, np.uint8)
    cells[:length] = frames
    grid = cells.reshape(rows, columns, height, width, 3).swapaxes(1, 2)  # (rows, H, columns, W, 3)
    return grid.reshape(rows * height, columns * width, 3)
