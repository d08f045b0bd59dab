"""Interpolation by AMT: each frame between two others from both, large frames in tiles."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from opensora.models.amt import AMT
from opensora.pipeline.tiles import blended

SHORT, LONG = 720, 1280  # sides of the largest tile; memory grows with the square of its pixels
OVERLAP = 128  # pixels in which one tile fades into the next; larger motion may show there


class ByNetwork:
    """A `Method`."""

    def __init__(self, model: AMT) -> None:
        self._model = model

    def __call__(self, scene: Iterator[np.ndarray], factor: int) -> Iterator[list[np.ndarray]]:
        for before, after in pairwise(scene):
            if before is after or np.array_equal(before, after):  # a frame that is held
                yield [before] * (factor - 1)
            else:
                yield self._between(before, after, factor)

    def _between(self, before: np.ndarray, after: np.ndarray, factor: int) -> list[np.ndarray]:
        def compute(images: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
            return self._model.between(images[0], images[1], factor)

        height, width = before.shape[:2]
        largest = (LONG, SHORT) if height > width else (SHORT, LONG)
        found = blended([_to_image(before), _to_image(after)], largest, OVERLAP, compute)
        return [_to_bytes(image) for image in found]


def _to_image(frame: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) -> float32 (1, 3, H, W) in 0..1."""
    return np.ascontiguousarray(frame.transpose(2, 0, 1)[None], np.float32) / np.float32(255)


def _to_bytes(image: np.ndarray) -> np.ndarray:
    """float32 (1, 3, H, W) in 0..1 -> uint8 (H, W, 3), rounded down (the reference)."""
    levels = np.clip(image[0] * 255, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(1, 2, 0))
