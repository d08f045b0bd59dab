"""TensorBoard events: numbers, pictures and videos, read back from the file."""

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from opensora.media.writer import write_video
from opensora.train.board import LONGEST_SIDE, MOST_FRAMES
from opensora.train.monitor import Monitor
from opensora.train.options import LoopOptions


def events(run: Path) -> list[Event]:
    """The events of a run: records of a length (8 bytes), a checksum (4), the content, and a checksum (4)."""
    (path,) = (run / "tensorboard").iterdir()
    content, found = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        found.append(Event.FromString(content[12 : 12 + length]))
        content = content[12 + length + 4 :]
    return found


def frames(count: int, height: int, width: int) -> np.ndarray:
    ramp = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(ramp, (count, height, width, 3)).copy()


def test_a_validation_is_printed_logged_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = tmp_path / "samples"
    (samples / "step-00000003").mkdir(parents=True)
    write_video(samples / "step-00000003.png", frames(1, 32, 48))
    write_video(samples / "step-00000003" / "0000-a_cat.mp4", frames(200, 32, 512), fps=10)
    write_video(samples / "step-00000003" / "0001-a_dog.png", frames(1, 32, 32))
    monitor = Monitor(tmp_path, 0, LoopOptions(max_train_steps=9))
    monitor.validation(3, {"validation_mse": 0.25}, samples)
    monitor.close()
    assert capsys.readouterr().err == "step 3/9  validation_mse 0.25\n"
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 3, "validation_mse": 0.25}

    values = {value.tag: value for event in events(tmp_path) for value in event.summary.value}
    assert values["validation_mse"].simple_value == 0.25
    assert values["samples"].image.encoded_image_string == (samples / "step-00000003.png").read_bytes()
    assert (values["samples"].image.height, values["samples"].image.width) == (32, 48)
    assert values["samples/0001-a_dog"].image.height == 32
    video = values["samples/0000-a_cat"].image
    with Image.open(io.BytesIO(video.encoded_image_string)) as shown:
        assert shown.format == "GIF" and shown.size == (video.width, video.height) == (LONGEST_SIDE, 16)
        assert 1 < getattr(shown, "n_frames", 1) <= MOST_FRAMES and shown.info["duration"] == 400


def test_other_processes_print_and_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monitor = Monitor(tmp_path, 0, LoopOptions(), processes=(1, 2))
    monitor.validation(3, {"validation_mse": 0.25}, tmp_path)
    monitor.close()
    assert capsys.readouterr().err == "" and not list(tmp_path.iterdir())
