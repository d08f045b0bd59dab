"""`opensora interpolate` from the words of the command line to the files."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from opensora.cli import main
from opensora.interpolate.frames import interpolated
from opensora.interpolate.motion import motion_compensated
from opensora.media.reader import probe, read_video
from opensora.media.writer import write_video
from opensora.metrics.pixels import psnr
from tests.media.test_mp4 import click_times, packets, write_source
from tests.models.amt.published import SMALL, small_weights
from tests.video_commands import make_once, moving, refusal


def middles(scene: Iterator[np.ndarray], factor: int) -> Iterator[list[np.ndarray]]:
    """A method whose frames are told from those of the video."""
    before = next(scene)
    for after in scene:
        yield [(before + (after - before) * n / factor) for n in range(1, factor)]
        before = after


def test_frames_and_their_order() -> None:
    frames = [np.array(value, float) for value in (0, 8, 16, 100, 108)]
    found = [float(frame) for frame in interpolated(frames, 4, middles, cuts=[3])]
    expected = [0, 2, 4, 6, 8, 10, 12, 14, 16, 16, 16, 16, 100, 102, 104, 106, 108, 108, 108, 108]
    assert found == expected


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_motion_compensation_takes_scenes_of_any_length(length: int, factor: int) -> None:
    frames = moving(length, height=41, width=50)
    found = np.stack(list(interpolated(iter(frames), factor, motion_compensated)))
    assert found.shape == (length * factor, 41, 50, 3)
    np.testing.assert_array_equal(found[::factor], frames)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (16, 16), (17, 200), (200, 8)])
def test_motion_compensation_takes_frames_of_any_size(height: int, width: int) -> None:
    frames = moving(3, height=height, width=width)
    found = np.stack(list(interpolated(iter(frames), 2, motion_compensated)))
    assert found.shape == (6, height, width, 3)


def test_motion_compensation_is_better_than_the_mean() -> None:
    frames = moving(9)
    found = list(interpolated(iter(frames[::2]), 2, motion_compensated))
    for number in (1, 3, 5, 7):
        mean = frames[number - 1] / 2 + frames[number + 1] / 2
        assert psnr(found[number], frames[number]) > psnr(mean, frames[number]) + 3


def test_rate_duration_and_sound_are_those_of_the_video(tmp_path: Path) -> None:
    source, target = write_source(tmp_path / "in.mp4", "aac"), tmp_path / "out.mp4"
    make_once(target, "interpolate", "--video_path", source, "--rec_path", target)
    before, after = probe(source), probe(target)
    assert (after.frames, after.fps) == (2 * before.frames, 2 * before.fps)
    assert packets(target) == packets(source)
    np.testing.assert_allclose(click_times(target), click_times(source), atol=1 / after.fps)
    sidecar = json.loads((tmp_path / "out.mp4.json").read_text())
    assert sidecar["recipe"]["factor"] == 2 and "minterpolate" in sidecar["recipe"]["filter"]


def test_a_cut_stays_a_cut(tmp_path: Path) -> None:
    write_video(tmp_path / "in.mp4", np.concatenate([moving(12, 0, 2), moving(12, 5, 2) // 2]))
    words = ["--video_path", str(tmp_path / "in.mp4"), "--rec_path", str(tmp_path / "out.mp4")]
    assert main(["interpolate", *words, "--factor", "4"]) == 0
    source = read_video(tmp_path / "in.mp4").astype(float)
    result = read_video(tmp_path / "out.mp4").astype(float)
    for number in range(44, 48):
        assert np.abs(result[number] - source[11]).mean() < 4
    assert np.abs(result[48] - source[12]).mean() < 4


def test_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, results = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    write_video(folder / "a.gif", moving(4), fps=10)
    write_video(folder / "b.png", moving(1))
    write_video(folder / "c.mp4", moving(5, height=33, width=47), fps=25)
    (folder / "d.mp4").write_bytes(b"no video")
    assert main(["interpolate", "--video_path", str(folder), "--rec_path", str(results)]) == 1
    assert sorted(path.name for path in results.iterdir()) == [
        "a.mp4",
        "a.mp4.json",
        "c.mp4",
        "c.mp4.json",
    ]
    assert (probe(results / "a.mp4").fps, probe(results / "c.mp4").fps) == (20, 50)
    assert "skipping d.mp4" in capsys.readouterr().err


def test_check_prints_the_psnr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "in.mp4", np.concatenate([moving(11, 0, 2), moving(12, 5, 2) // 2]))
    assert main(["interpolate", "--video_path", str(tmp_path / "in.mp4"), "--check"]) == 0
    line = capsys.readouterr().out
    assert float(line.split("PSNR ")[1].split()[0]) > 25
    assert "of 10 frames" in line  # of eleven, the one beside the cut is left out
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def write_model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(SMALL))
    save_file(dict(small_weights()), folder / "model.safetensors")
    return folder


@pytest.mark.slow
def test_a_network(tmp_path: Path) -> None:
    """Its frames, in the place of the filter's; the sidecar names its weights."""
    write_video(tmp_path / "in.mp4", moving(3, height=32, width=48))
    words = ["--video_path", str(tmp_path / "in.mp4"), "--rec_path", str(tmp_path / "out.mp4")]
    model = write_model(tmp_path / "amt")
    assert main(["interpolate", *words, "--weights", str(model), "--engine", "openvino"]) == 0
    assert probe(tmp_path / "out.mp4").frames == 6
    recipe = json.loads((tmp_path / "out.mp4.json").read_text())["recipe"]
    assert set(recipe["weights"]) == {"config.json", "model.safetensors"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rec_path", "out.mp4", "--factor", "3"], "factor"),
        (
            ["--rec_path", "out.avi"],
            r"--rec_path out\.avi cannot be written: choose a name that ends in \.mp4",
        ),
        ([], "name the result with --rec_path"),
        (["--check", "--rec_path", "out.mp4"], "name the result with --rec_path"),
        (["--check", "--factor", "4"], "leave out --factor 4"),
        (["--rec_path", "out.mp4", "--weights", "amt-g.pth"], r"weights amt-g\.pth do not exist"),
        (["--rec_path", "out.mp4", "--weights", "in.mp4"], r"in\.mp4 is not a file of weights"),
        (["--rec_path", "out.mp4", "--weights", "other.safetensors"], "are not those of the model"),
        (["--rec_path", "out.mp4", "--video_path", "still.png"], "is a picture: name a video"),
        (["--rec_path", "out.mp4", "--video_path", "missing.mp4"], r"missing\.mp4 does not exist"),
        (["--rec_path", "in.mp4"], r"in\.mp4 exists and was made otherwise"),
        (["--rec_path", "out.mp4", "--video_path", "."], "is a file, but --video_path . a folder"),
        (["--rec_path", "short", "--video_path", "."], "none of 2 files could be read"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "in.mp4", moving(3))
    write_video(tmp_path / "still.png", moving(1))
    save_file(dict(small_weights()), tmp_path / "other.safetensors")
    if message.startswith("none"):
        for name in ("in.mp4", "too.mp4"):
            (tmp_path / name).write_bytes(b"no video")
    found = refusal(capsys, "interpolate", "--video_path", "in.mp4", *words)
    assert re.search(message, found), found
    assert not (tmp_path / "out.mp4").exists()
