"""Folders of numbered pictures are videos: order, size, cutting and faults."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opensora.data.clips import Segment, draw_frames
from opensora.media.reader import probe, read_video


def write(folder: Path, names: list[str], size: tuple[int, int] = (6, 8)) -> Path:
    """Pictures whose grey level is ten times their place in `names`."""
    folder.mkdir(exist_ok=True)
    for place, name in enumerate(names):
        Image.fromarray(np.full((*size, 3), 10 * place, np.uint8)).save(folder / name)
    return folder


def test_the_last_number_of_a_name_is_the_order(tmp_path: Path) -> None:
    names = ["clip_7_frame_2.png", "clip_7_frame_10.png", "clip_7_frame_11.PNG"]
    folder = write(tmp_path / "sky", names)
    write(folder, ["cover.png"])
    (folder / "notes.txt").write_text("1")
    assert probe(folder) == (3, 24.0, 6, 8)
    assert read_video(folder)[:, 0, 0, 0].tolist() == [0, 10, 20]
    assert read_video(folder, 2, 2)[:, 0, 0, 0].tolist() == [0, 20]
    assert probe(folder, fps=12).frames == 2


def test_clips_are_cut_as_from_a_video(tmp_path: Path) -> None:
    folder = write(tmp_path / "sky", [f"a_{number}.png" for number in range(9)])
    levels = draw_frames(Segment(folder), 3, 2, np.random.default_rng(0))[:, 0, 0, 0]
    assert np.diff(levels).tolist() == [20, 20]


def test_faults(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it has no numbered pictures"):
        probe(write(tmp_path / "none", ["cover.png"]))
    folder = write(tmp_path / "mixed", ["a_0.png"])
    Image.new("RGB", (4, 4)).save(folder / "a_1.png")
    with pytest.raises(ValueError, match=r"mixed cannot be read as a video: a_1.png is 4x4, but the first"):
        read_video(folder)
    (folder / "a_0.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="mixed cannot be read"):
        probe(folder)
