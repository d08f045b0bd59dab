from pathlib import Path

import numpy as np
import pytest

from opensora.data.clips import ClipShape
from opensora.media.writer import write_video


def ramp(length: int, height: int, width: int) -> np.ndarray:
    """Frames whose levels tell time, row and column."""
    levels = 40 * np.arange(length)[:, None, None] + np.arange(height)[:, None] + np.arange(width)
    return np.repeat((levels % 256)[..., None], 3, axis=3).astype(np.uint8)


@pytest.fixture
def picture() -> Path:
    write_video("picture.png", ramp(1, 21, 35))
    return Path("picture.png")


def test_frames_stay_as_they_are_but_for_the_edges(picture: Path) -> None:
    assert np.array_equal(ClipShape(num_frames=3).read(picture), ramp(1, 21, 35))
    # 5 rows and 3 columns are cropped. Half margins are rounded to even: 2.5 rows above become 2, 1.5 columns
    # to the left become 2.
    assert np.array_equal(ClipShape(num_frames=1, multiple=8).read(picture), ramp(1, 21, 35)[:, 2:18, 2:34])
    assert np.array_equal(
        ClipShape(num_frames=1, multiple=8, crop_size=8).read(picture), ramp(1, 21, 35)[:, 6:14, 14:22]
    )


def test_the_shorter_side_is_resized_then_the_middle_cut_out(picture: Path) -> None:
    assert ClipShape(num_frames=1, resolution=14).read(picture).shape == (1, 14, 23, 3)
    crop = ClipShape(num_frames=1, resolution=14, crop_size=8).read(picture)
    assert np.array_equal(crop, ClipShape(num_frames=1, resolution=14).read(picture)[:, 3:11, 8:16])
    # Levels of a ramp stay a ramp: 1.5 source pixels a step, in rows and columns.
    assert np.abs(np.diff(crop[0, 0, :, 0].astype(int)) - 1.5).max() <= 0.6
    assert np.array_equal(ClipShape(num_frames=1, resolution=21).read(picture), ramp(1, 21, 35))


def test_long_clips_are_read_in_parts_and_short_ones_as_far_as_they_go() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (37, 16, 24, 3), np.uint8)
    write_video("a.mp4", frames)
    whole = ClipShape(num_frames=100).read(Path("a.mp4"))
    assert whole.shape == (37, 16, 24, 3)
    assert np.array_equal(ClipShape(num_frames=5, sample_rate=7).read(Path("a.mp4"), 2), whole[2::7])
    assert np.array_equal(ClipShape(num_frames=2, sample_rate=7).read(Path("a.mp4"), 2), whole[[2, 9]])
    with pytest.raises(ValueError, match=r"a\.mp4 has no frame 40"):
        ClipShape(num_frames=2).read(Path("a.mp4"), 40)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frames": 0}, "num_frames 0 is too small"),
        ({"sample_rate": 0}, "sample_rate 0 is too small"),
        (
            {"crop_size": 100, "multiple": 8},
            "crop_size 100 is not a multiple of 8, the autoencoder's stride: use 96",
        ),
        ({"crop_size": 3, "multiple": 8}, "use 8"),
        ({"crop_size": 64, "resolution": 32}, "crop_size 64 is larger than resolution 32"),
    ],
)
def test_sizes_that_do_not_fit_are_explained(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipShape(**{"num_frames": 1, **options})


@pytest.mark.parametrize(("options", "least"), [({"multiple": 32}, 32), ({"crop_size": 24}, 24)])
def test_small_files_are_named_with_the_remedy(picture: Path, options: dict[str, int], least: int) -> None:
    size = rf"picture\.png has frames of 21x35, less than {least}x{least}"
    message = f"{size}: enlarge them with --resolution {least}"
    with pytest.raises(ValueError, match=message):
        ClipShape(num_frames=1, **options).read(picture)
