"""Tiles cover a frame, and what they compute fades into each other."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from opensora.pipeline.tiles import blended, spans


@pytest.mark.parametrize(
    ("size", "largest", "overlap"), [(100, 100, 8), (101, 100, 8), (1000, 96, 32), (97, 33, 32)]
)
def test_spans(size: int, largest: int, overlap: int) -> None:
    found = spans(size, largest, overlap)
    assert found[0][0] == 0 and found[-1][1] == size
    assert len({stop - start for start, stop in found}) == 1 and found[0][1] <= largest
    assert all(before[1] - after[0] >= overlap for before, after in pairwise(found))


def test_a_map_of_pixels_is_the_same_in_tiles() -> None:
    image = np.random.default_rng(0).random((1, 3, 50, 71), np.float32)

    def compute(images: Sequence[np.ndarray]) -> list[np.ndarray]:
        assert images[0].shape[2] <= 20 and images[0].shape[3] <= 30
        return [2 * images[0], images[0] - images[1]]

    double, difference = blended([image, image], (20, 30), 8, compute)
    np.testing.assert_allclose(double, 2 * image, rtol=1e-6)
    np.testing.assert_array_equal(difference, 0)


def test_tiles_fade_into_each_other() -> None:
    numbers = iter((0.0, 1.0))
    image = np.zeros((1, 1, 20, 30), np.float32)
    (found,) = blended([image], (20, 20), 10, lambda images: [np.full_like(images[0], next(numbers))])
    row = found[0, 0, 0]
    assert (row[:10] == 0).all() and (row[20:] == 1).all()
    assert (np.diff(row) >= 0).all() and np.diff(row).max() < 0.1
