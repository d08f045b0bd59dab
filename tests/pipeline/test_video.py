"""`Video`: files, notebooks, and sidecars that are the command line's."""

import base64
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opensora import Pipeline
from opensora.cli import main
from opensora.media.reader import probe, read_video
from opensora.pipeline.video import Video


def noise(length: int, size: int) -> Video:
    frames = np.random.default_rng(0).integers(0, 256, (length, size, size, 3), np.uint8)
    return Video(frames, 8, {"prompt": "a <b>cat</b>" + 90 * "y", "seed": 3})


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.mov", "a.mkv", "a.gif", "a.webp", "frames"])
def test_files_come_back(tmp_path: Path, name: str) -> None:
    video = Video(np.full((5, 32, 48, 3), 90, np.uint8), 8)
    video.save(tmp_path / "new" / name)
    again = Video.read(tmp_path / "new" / name)
    assert again.frames.shape == video.frames.shape and again.metadata == {}
    assert np.abs(again.frames.astype(int) - 90).max() <= 3
    assert again.fps == (24 if name == "frames" else 8)
    with pytest.raises(ValueError, match="was not made by a pipeline"):
        video.save(tmp_path / "b.mp4", sidecar=True)


def test_a_short_repr_and_a_page(tmp_path: Path) -> None:
    video = noise(4, 32)
    assert (
        repr(video).startswith("Video(4 frames of 32x32 at 8 fps, 'a <b>cat</b>yyy")
        and len(repr(video)) < 120
    )
    page = video._repr_html_()
    assert page.startswith("<video ") and "<b>" not in page
    (tmp_path / "a.mp4").write_bytes(base64.b64decode(re.search('base64,([^"]*)', page)[1]))
    assert probe(tmp_path / "a.mp4") == (4, 8.0, 32, 32)
    still = Video(video.frames[:1], 8)
    assert repr(still) == "Video(1 frame of 32x32)" and still._repr_html_().startswith("<img ")
    assert [image.size for image in video.to_pil()] == 4 * [(32, 32)]


@pytest.mark.parametrize(
    ("frames", "fps", "error", "message"),
    [
        ([[1]], 24, TypeError, "frames must be an array, not list"),
        (np.zeros((2, 8, 8, 3)), 24, ValueError, r"frames must be uint8 \(T, H, W, 3\).*got float64"),
        (np.zeros((0, 8, 8, 3), np.uint8), 24, ValueError, "with T > 0"),
        (np.zeros((2, 8, 8, 3), np.uint8), 0, ValueError, "fps 0 is out of range"),
        (np.zeros((2, 8, 8, 3), np.uint8), float("nan"), ValueError, "fps nan is out of range"),
        (np.zeros((2, 8, 8, 3), np.uint8), "24", TypeError, "fps must be a number, not str '24'"),
    ],
)
def test_what_is_no_video_is_refused(frames: Any, fps: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Video(frames, fps)


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(ValueError, match=r"b\.mp4 cannot be written"):
        noise(1, 32).save(tmp_path / "a" / "b.mp4")


def test_large_videos_are_shown_smaller() -> None:
    page = noise(12, 512)._repr_html_()
    assert len(page) < 2_000_000 and 'width="512"' in page


def test_the_sidecar_is_the_command_line_s(model: Path) -> None:
    assert main(["generate", "a cat", "--model_path", "model", "--save_img_path", "out", "--seed", "3"]) == 0
    video = Pipeline.from_pretrained("model")("a cat", seed=3)
    video.save("mine/0000-a_cat.mp4", sidecar=True)
    for name in ("0000-a_cat.mp4", "0000-a_cat.json"):
        assert Path("mine", name).read_bytes() == Path("out", name).read_bytes()
    again = Video.read("mine/0000-a_cat.mp4")
    assert again.metadata["prompt"] == "a cat" and again.fps == 12
    copy = pickle.loads(pickle.dumps(video))
    assert copy.metadata == video.metadata and np.array_equal(copy.frames, video.frames)

    picture = Pipeline.from_pretrained("model")("a cat", num_frames=1, latents=np.ones((1, 4, 1, 4, 4)))
    picture.save("one.png", sidecar=True)
    content = json.loads(Path("one.json").read_text())
    assert "command" not in content and set(content["recipe"]["inputs"]) == {"latents"}
    assert read_video("one.png").shape == (1, 32, 32, 3)
