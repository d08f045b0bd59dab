from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opensora.data.clips import Segment
from opensora.data.dataset.videos import VideoDataset, split
from opensora.media.formats import media_files
from opensora.media.writer import write_video


def counting(number: int, frames: int = 20, height: int = 24, width: int = 40) -> np.ndarray:
    """Frame i is of one grey, 10 * i + number."""
    video = np.zeros((frames, height, width, 3), np.uint8)
    video += (10 * np.arange(frames) + number).astype(np.uint8)[:, None, None, None]
    return video


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of 20 frames, a broken one in a subfolder, and a text."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(3):
        write_video(folder / f"{number}.webp", counting(number), 10)
    (folder / "more").mkdir()
    (folder / "more" / "broken.mp4").write_bytes(b"no video")
    (folder / "notes.txt").write_text("no video either")
    return folder


def greys(clip: np.ndarray) -> np.ndarray:
    return clip.reshape(len(clip), -1).mean(1)


def test_clips_are_a_function_of_seed_and_number(folder: Path) -> None:
    segments = [Segment(path) for path in media_files(folder, recursive=True) if "broken" not in path.name]
    settings: dict[str, Any] = {
        "num_frames": 5,
        "size": 16,
        "sample_rate": 3,
        "dynamic_sample": True,
        "random_crop": True,
    }
    first, second = VideoDataset(segments, 1, **settings), VideoDataset(segments, 1, **settings)
    backwards = {number: second.clip(number) for number in reversed(range(6))}
    for number in range(6):
        clip = first.clip(number)
        assert clip.shape == (5, 16, 16, 3) and clip.dtype == np.uint8
        np.testing.assert_array_equal(clip, backwards[number])
    for epoch in (0, 3):
        assert sorted(first.name(number) for number in range(epoch, epoch + 3)) == [
            str(segment.path) for segment in segments
        ]
    assert any(
        not np.array_equal(VideoDataset(segments, 2, **settings).clip(number), backwards[number])
        for number in range(3)
    )


@pytest.mark.parametrize(("dynamic", "steps"), [(False, {30}), (True, {10, 20, 30})])
def test_every_nth_frame_is_taken(folder: Path, dynamic: bool, steps: set[int]) -> None:
    clips = VideoDataset(
        [Segment(folder / "0.webp")], 0, num_frames=4, size=16, sample_rate=3, dynamic_sample=dynamic
    )
    found = {round(float(step)) for number in range(40) for step in np.diff(greys(clips.clip(number)))}
    assert {min(steps, key=lambda step: abs(step - value)) for value in found} == steps
    assert max(found) <= max(steps) + 6 and min(found) >= min(steps) - 6  # the format loses a little


def test_the_square_is_in_the_middle_or_anywhere(tmp_path: Path) -> None:
    ramp = np.zeros((1, 16, 48, 3), np.uint8) + np.arange(0, 240, 5, dtype=np.uint8)[None, None, :, None]
    write_video(tmp_path / "ramp.png", ramp, 1)
    segments = [Segment(tmp_path / "ramp.png")]
    middle = VideoDataset(segments, 0, num_frames=1, size=16).clip(0)
    np.testing.assert_allclose(middle[0, 0, 2:-2, 0].mean(), ramp[0, 0, 18:30, 0].mean(), atol=6)
    places = {
        round(float(VideoDataset(segments, 0, 1, 16, random_crop=True).clip(number).mean()))
        for number in range(12)
    }
    assert len(places) > 4 and min(places) >= 30 and max(places) <= 205


def test_a_video_that_cannot_be_read_is_named_and_replaced(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    segments = [Segment(path) for path in media_files(folder, recursive=True)]
    clips = VideoDataset(segments, 0, num_frames=5, size=16)
    found = [clips.clip(number) for number in range(8)]
    again = VideoDataset(segments, 0, num_frames=5, size=16)
    assert all(np.array_equal(again.clip(number), clip) for number, clip in enumerate(found))
    assert caplog.text.count("broken.mp4 cannot be read as a video") == 2  # once a source
    with pytest.raises(ValueError, match=r"none of the 1 videos can be read, the last tried was .*broken"):
        VideoDataset([Segment(folder / "more" / "broken.mp4")], 0, 5, 16).clip(0)


def test_a_tail_of_each_video_is_held_out(folder: Path) -> None:
    train, held_out = split(media_files(folder, recursive=True), num_frames=5)
    assert [segment[1:] for segment in train] == [(0, 15)] * 3 + [(0, None)]
    assert [segment[1:] for segment in held_out] == [(15, 20)] * 3
    last = greys(VideoDataset(train[:1], 0, num_frames=5, size=16).clip(3))
    assert last.max() < 150
    assert greys(VideoDataset(held_out[:1], 0, num_frames=5, size=16).clip(0)).min() > 140
    with pytest.raises(ValueError, match=r"no video can be split into 11 frames .* --validation_video_path"):
        split(media_files(folder, recursive=True), num_frames=11)


def test_of_many_videos_one_in_twenty_is_held_out() -> None:
    paths = [Path(f"{number:03d}.mp4") for number in range(41)]
    train, held_out = split(paths, num_frames=5)
    assert [segment.path.name for segment in held_out] == ["019.mp4", "039.mp4"]
    assert len(train) == 39 and not {segment.path for segment in train} & {
        segment.path for segment in held_out
    }
