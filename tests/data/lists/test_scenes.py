"""Cuts are found, and fast motion, flashes and fades are none."""

from itertools import pairwise

import numpy as np
import pytest

from opensora.data.lists.scenes import Scene, find_scenes
from opensora.media.writer import write_video


def picture(seed: int) -> np.ndarray:
    """A smooth picture of 72x128 that repeats to the right; pictures of two seeds differ strongly."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return coarse.repeat(12, 0).repeat(16, 1)


def pan(seed: int, length: int, speed: int = 1) -> np.ndarray:
    return np.stack([np.roll(picture(seed), speed * t, axis=1) for t in range(length)])


def scenes(path, frames: np.ndarray) -> list[Scene]:
    write_video(path, frames)
    return find_scenes(path)


@pytest.mark.parametrize("lengths", [[12, 20, 9], [30], [17, 4, 17], [1, 20], [20, 1]])
def test_cuts_are_found_to_the_frame(tmp_path, lengths):
    found = scenes(
        tmp_path / "a.mp4", np.concatenate([pan(seed, length) for seed, length in enumerate(lengths)])
    )
    edges = [0, *np.cumsum(lengths)]
    # A single frame at an end cannot be told from a flash; the scene goes on.
    if 1 in lengths:
        assert len(found) <= 2
    else:
        assert [(scene.start, scene.end) for scene in found] == list(pairwise(edges))


def test_fast_motion_is_no_cut(tmp_path):
    assert len(scenes(tmp_path / "a.mp4", pan(0, 30, speed=8))) == 1


def test_a_flash_of_one_frame_is_no_cut(tmp_path):
    frames = pan(0, 30)
    frames[14] = 255
    assert len(scenes(tmp_path / "a.mp4", frames)) == 1


def test_a_fade_is_no_cut(tmp_path):
    share = np.linspace(0, 1, 30)[:, None, None, None]
    assert (
        len(scenes(tmp_path / "a.mp4", (picture(0) * (1 - share) + picture(1) * share).astype(np.uint8))) == 1
    )


def test_motion_grows_with_speed_and_is_nothing_in_a_still(tmp_path):
    still, slow, fast = (
        scenes(tmp_path / f"{speed}.mp4", pan(0, 20, speed))[0].motion for speed in (0, 1, 4)
    )
    assert still < 0.2 and 0.5 < slow < fast / 2


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_short_videos_are_one_scene(tmp_path, length):
    assert [scene[:2] for scene in scenes(tmp_path / "a.mp4", pan(0, length))] == [(0, length)]


def test_animations_are_measured_too(tmp_path):
    found = scenes(tmp_path / "a.gif", np.concatenate([pan(0, 10), pan(1, 10)]))
    assert [(scene.start, scene.end) for scene in found] == [(0, 10), (10, 20)]
