import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opensora.data.dataset.videos import Part, VideoClips, find_videos, listed_videos, split
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
    parts = [Part(path) for path in find_videos(folder) if "broken" not in path.name]
    settings: dict[str, Any] = {
        "num_frames": 5,
        "size": 16,
        "sample_rate": 3,
        "dynamic_sample": True,
        "random_crop": True,
    }
    first, second = VideoClips(parts, 1, **settings), VideoClips(parts, 1, **settings)
    backwards = {number: second.clip(number) for number in reversed(range(6))}
    for number in range(6):
        clip = first.clip(number)
        assert clip.shape == (5, 16, 16, 3) and clip.dtype == np.uint8
        np.testing.assert_array_equal(clip, backwards[number])
    for epoch in (0, 3):
        assert sorted(first.name(number) for number in range(epoch, epoch + 3)) == [
            str(part.path) for part in parts
        ]
    assert any(
        not np.array_equal(VideoClips(parts, 2, **settings).clip(number), backwards[number])
        for number in range(3)
    )


@pytest.mark.parametrize(("dynamic", "steps"), [(False, {30}), (True, {10, 20, 30})])
def test_every_nth_frame_is_taken(folder: Path, dynamic: bool, steps: set[int]) -> None:
    clips = VideoClips(
        [Part(folder / "0.webp")], 0, num_frames=4, size=16, sample_rate=3, dynamic_sample=dynamic
    )
    found = {round(float(step)) for number in range(40) for step in np.diff(greys(clips.clip(number)))}
    assert {min(steps, key=lambda step: abs(step - value)) for value in found} == steps
    assert max(found) <= max(steps) + 6 and min(found) >= min(steps) - 6  # the format loses a little


def test_the_square_is_in_the_middle_or_anywhere(tmp_path: Path) -> None:
    ramp = np.zeros((1, 16, 48, 3), np.uint8) + np.arange(0, 240, 5, dtype=np.uint8)[None, None, :, None]
    write_video(tmp_path / "ramp.png", ramp, 1)
    parts = [Part(tmp_path / "ramp.png")]
    middle = VideoClips(parts, 0, num_frames=1, size=16).clip(0)
    np.testing.assert_allclose(middle[0, 0, 2:-2, 0].mean(), ramp[0, 0, 18:30, 0].mean(), atol=6)
    places = {
        round(float(VideoClips(parts, 0, 1, 16, random_crop=True).clip(number).mean()))
        for number in range(12)
    }
    assert len(places) > 4 and min(places) >= 30 and max(places) <= 205


def test_a_video_that_cannot_be_read_is_named_and_replaced(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = [Part(path) for path in find_videos(folder)]
    clips = VideoClips(parts, 0, num_frames=5, size=16)
    found = [clips.clip(number) for number in range(8)]
    again = VideoClips(parts, 0, num_frames=5, size=16)
    assert all(np.array_equal(again.clip(number), clip) for number, clip in enumerate(found))
    assert caplog.text.count("broken.mp4 cannot be read as a video") == 2  # once a source
    with pytest.raises(ValueError, match=r"none of the 1 videos can be read, the last tried was .*broken"):
        VideoClips([Part(folder / "more" / "broken.mp4")], 0, 5, 16).clip(0)


def test_a_tail_of_each_video_is_held_out(folder: Path) -> None:
    train, held_out = split(find_videos(folder), num_frames=5)
    assert [part[1:] for part in train] == [(0, 15)] * 3 + [(0, None)]
    assert [part[1:] for part in held_out] == [(15, 20)] * 3
    last = greys(VideoClips(train[:1], 0, num_frames=5, size=16).clip(3))
    assert last.max() < 150
    assert greys(VideoClips(held_out[:1], 0, num_frames=5, size=16).clip(0)).min() > 140
    with pytest.raises(ValueError, match=r"no video can be split into 11 frames .* --validation_video_path"):
        split(find_videos(folder), num_frames=11)


def test_of_many_videos_one_in_twenty_is_held_out() -> None:
    paths = [Path(f"{number:03d}.mp4") for number in range(41)]
    train, held_out = split(paths, num_frames=5)
    assert [part.path.name for part in held_out] == ["019.mp4", "039.mp4"]
    assert len(train) == 39 and not {part.path for part in train} & {part.path for part in held_out}


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl"])
def test_lists_name_videos(tmp_path: Path, suffix: str) -> None:
    names = ["a.mp4", "sub/b, c.mp4"]
    path = tmp_path / f"list{suffix}"
    if suffix == ".csv":
        path.write_text('caption,clip\nx,a.mp4\ny,"sub/b, c.mp4"\n')
    else:
        rows = [json.dumps({"clip": name}) for name in names]
        path.write_text("\n".join(rows) if suffix == ".jsonl" else f"[{', '.join(rows)}]")
    assert listed_videos(path, "clip") == [tmp_path / name for name in names]
    assert listed_videos(path, "clip", "videos") == [Path("videos") / name for name in names]
    with pytest.raises(ValueError, match=f"record 1 of .*list{suffix} has no 'video': .* --video_column"):
        listed_videos(path)


def test_a_list_that_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    for name in ("../a.mp4", "/etc/a.mp4"):
        (tmp_path / "list.json").write_text(json.dumps([{"video": name}]))
        with pytest.raises(ValueError, match="outside of"):
            listed_videos(tmp_path / "list.json")
    (tmp_path / "list.json").write_text("[")
    with pytest.raises(ValueError, match=r"list\.json cannot be read"):
        listed_videos(tmp_path / "list.json")
    (tmp_path / "list.txt").write_text("a.mp4")
    with pytest.raises(ValueError, match=r"ends in none of \.json, \.jsonl, \.csv"):
        listed_videos(tmp_path / "list.txt")
