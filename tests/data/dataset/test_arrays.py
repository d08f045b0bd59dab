"""Clips from a program instead of files."""

import numpy as np
import pytest

from opensora.data.dataset import ArrayClips, ArrayDataset
from opensora.data.options import ClipOptions
from opensora.media.pixels import to_pixels


def levels(first: int, length: int = 6, size: int = 16) -> np.ndarray:
    """Frame t is grey at the level 10 * (first + t)."""
    grey = 10 * (first + np.arange(length, dtype=np.uint8))[:, None, None, None]
    return np.broadcast_to(grey, (length, size, size, 3)).copy()


def test_items_are_cut_like_files() -> None:
    dataset = ArrayDataset(iter([(levels(0), "dark"), (levels(9), "light")]), ClipOptions(num_frames=4))
    assert (
        len(dataset) == 2
        and dataset.captions(1) == (["light"], 0)
        and dataset.name(1) == "item 1 of the data"
    )
    small = ArrayDataset([(levels(3), "x")], ClipOptions(num_frames=6, max_image_size=16))
    np.testing.assert_allclose(
        small.visual(0, np.random.default_rng(0)), to_pixels(levels(3)[None])[0], atol=1e-6
    )


def test_an_epoch_has_every_item_once() -> None:
    clips = ArrayClips([levels(0), levels(6), levels(12)], seed=0, num_frames=6, size=16)
    assert clips.epoch == 3
    for epoch in range(2):
        found = sorted(int(clips.clip(3 * epoch + place)[0, 0, 0, 0]) for place in range(3))
        assert found == [0, 60, 120]
    np.testing.assert_array_equal(clips.clip(5), clips.clip(5))


@pytest.mark.parametrize(
    ("item", "error", "message"),
    [
        (levels(0), TypeError, "item 0 of the data must be a pair of frames and a caption"),
        ((levels(0), 5), TypeError, "a pair of frames and a caption"),
        (([1, 2], "x"), TypeError, "item 0 of the data must be an array of frames, not list"),
        ((levels(0).astype(np.float32), "x"), ValueError, r"must be uint8 \(T, H, W, 3\), not float32"),
        ((levels(0, 3), "x"), ValueError, "item 0 of the data has 3 frames, 4 are needed"),
    ],
)
def test_faults_name_the_item(item: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ArrayDataset([item], ClipOptions(num_frames=4))  # type: ignore[list-item]
    with pytest.raises(ValueError, match="the data has no item"):
        ArrayDataset([], ClipOptions())
