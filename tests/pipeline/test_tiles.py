"""Tiles cover a frame, and what they compute fades into each other."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from opensora.pipeline.tiles import blended, chopped, joined, spans
from tests import reference


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


def test_joined_tiles_are_the_whole_image() -> None:
    """A blur by 3 pixels, which sees zeros beyond the image."""
    image = np.random.default_rng(1).random((1, 2, 41, 60), np.float32)

    def blur(tile: np.ndarray) -> np.ndarray:
        assert max(tile.shape[2:]) <= 20
        padded = np.pad(tile, ((0, 0), (0, 0), (3, 3), (3, 3)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), (2, 3))
        return np.asarray(windows.mean((-1, -2)).repeat(2, 2).repeat(2, 3))

    padded = np.pad(image, ((0, 0), (0, 0), (3, 3), (3, 3)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), (2, 3))
    whole = windows.mean((-1, -2)).repeat(2, 2).repeat(2, 3)
    np.testing.assert_allclose(joined(image, 20, 3, 2, blur), whole, rtol=1e-5)


def test_chopped_tiles_are_the_reference() -> None:
    """The reference's stand-in for a network: the tile without its mean, with repeated pixels."""
    y, x = np.indices((203, 410))
    image = (((7 * y + 13 * x) % 256) / 255).astype(np.float32)[None, None]

    def network(tile: np.ndarray) -> np.ndarray:
        return (tile - tile.mean(dtype=np.float64)).astype(np.float32).repeat(2, 2).repeat(2, 3)

    found = chopped(image, 200, 16, 2, network)
    assert found.shape == (1, 1, 406, 820)
    expected = reference.load("rgt/outputs")["chop.output"]
    np.testing.assert_allclose(found[..., ::5, ::7], expected, atol=1e-5)
