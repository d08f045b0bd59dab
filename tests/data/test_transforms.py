import numpy as np
import pytest

from opensora.data import transforms
from tests.reference import load


@pytest.fixture(scope="module")
def reference():
    return load("extras/transforms")


@pytest.fixture
def video(reference):
    return reference["video_uint8"].astype(np.float32) / 255


def ramp(height: int, width: int) -> np.ndarray:
    return np.arange(height * width, dtype=np.float32).reshape(1, 1, height, width)


@pytest.mark.parametrize(
    ("name", "function", "size"),
    [
        ("center_crop_resize_16", transforms.center_crop_resize, 16),
        ("long_side_24", transforms.long_side_resize, 24),
        ("stride_crop_16", transforms.stride_crop, 16),
        ("center_crop_16", transforms.center_crop, 16),
    ],
)
def test_matches_the_reference(reference, video, name, function, size):
    result = function(video, size)
    assert result.dtype == np.float32
    np.testing.assert_allclose(2 * result - 1, reference[name], atol=1e-6, rtol=0)


def test_frames_become_floats_and_model_input(reference, video):
    frames = reference["video_uint8"].transpose(0, 2, 3, 1)
    assert np.array_equal(transforms.to_float(frames), video)
    signed = transforms.to_model(video)
    assert signed.shape == (3, 3, 20, 30) and signed.min() == -1 and signed.max() == 1
    assert np.array_equal(signed[1, 2], 2 * video[2, 1] - 1)


def test_resizing_to_the_same_size_changes_nothing(video):
    assert np.array_equal(transforms.resize(video, video.shape[-2:]), video)


@pytest.mark.parametrize("size", [(7, 5), (41, 90), (1, 1), (20, 3)])
def test_resizing_keeps_flat_colours(size):
    result = transforms.resize(np.full((2, 3, 20, 30), 0.25, np.float32), size)
    assert result.shape == (2, 3, *size)
    np.testing.assert_allclose(result, 0.25, atol=1e-6)


def test_rectangles_keep_their_proportions():
    result = transforms.center_crop_resize(ramp(12, 12), (4, 8))
    assert result.shape == (1, 1, 4, 8)
    np.testing.assert_allclose(result, transforms.resize(ramp(12, 12)[..., 3:9, :], (4, 8)))


def test_tall_videos_are_resized_by_their_height():
    assert transforms.long_side_resize(ramp(30, 20), 24).shape == (1, 1, 24, 16)


def test_small_videos_stay_unless_told_otherwise():
    small = ramp(6, 8)
    assert transforms.long_side_resize(small, 24) is small
    assert transforms.long_side_resize(small, 24, skip_low_resolution=False).shape == (1, 1, 18, 24)


@pytest.mark.parametrize(("size", "expected"), [((20, 30), (8, 12)), ((31, 20), (12, 8)), ((6, 6), (8, 8))])
def test_the_shorter_side_gets_the_size(size, expected):
    result = transforms.short_side_resize(ramp(*size), 8)
    assert result.shape[-2:] == expected
    assert np.array_equal(result, transforms.resize(ramp(*size), expected))


def test_odd_margins_are_rounded_to_even_as_in_the_reference():
    assert transforms.center_crop(ramp(5, 7), 4)[0, 0, 0, 0] == 2  # margins 1 / 2 -> 0 and 3 / 2 -> 2
    assert transforms.center_crop(ramp(5, 7), (4, 6))[0, 0, 0, 0] == 0


def test_crops_that_do_not_fit_are_explained():
    with pytest.raises(ValueError, match="8x8 does not fit into a video of 5x9: resize it first"):
        transforms.center_crop(ramp(5, 9), 8)
    with pytest.raises(ValueError, match="does not fit"):
        transforms.random_crop(ramp(5, 9), 8, np.random.default_rng(0))


def test_random_crops_reach_every_place_and_follow_the_generator():
    corners = {
        transforms.random_crop(ramp(4, 5), (3, 3), np.random.default_rng(seed))[0, 0, 0, 0]
        for seed in range(60)
    }
    assert corners == {0, 1, 2, 5, 6, 7}
    first, again = (transforms.random_crop(ramp(9, 9), 3, np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(first, again)


def test_random_flips():
    video = ramp(2, 3)
    assert np.array_equal(transforms.random_flip(video, np.random.default_rng(0), 1.0), video[..., ::-1])
    assert transforms.random_flip(video, np.random.default_rng(0), 0.0) is video
    rng = np.random.default_rng(0)
    assert 30 < sum(transforms.random_flip(video, rng) is video for _ in range(100)) < 70


@pytest.mark.parametrize(
    ("total", "num_frames", "rate", "expected"),
    [
        (10, 3, 1, [0, 1, 2]),
        (10, 4, 3, [0, 3, 6, 9]),
        (10, 4, 5, [0, 3, 6, 9]),
        (3, 3, 4, [0, 1, 2]),
        (9, 1, 4, [0]),
    ],
)
def test_frames_are_evenly_spaced(total, num_frames, rate, expected):
    assert transforms.frame_indices(total, num_frames, rate).tolist() == expected


def test_random_starts_reach_the_first_and_the_last_frame():
    rng = np.random.default_rng(0)
    starts = {int(transforms.frame_indices(10, 4, 2, rng)[0]) for _ in range(100)}
    assert starts == {0, 1, 2, 3}


def test_short_videos_are_explained():
    with pytest.raises(ValueError, match="17 frames are needed, the video has 16"):
        transforms.frame_indices(16, 17)
