"""`opensora upscale` from the words of the command line to the files."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from opensora.cli import main
from opensora.engine import open_engine
from opensora.media.reader import probe, read_video
from opensora.media.writer import write_video
from opensora.models import SRVGG
from opensora.upscale import frames as module
from opensora.upscale.frames import Upscaler, open_upscaler
from tests.media.test_mp4 import packets, write_source
from tests.models.rgt.test_model import tiny_weights
from tests.models.srvgg.test_model import small_weights
from tests.video_commands import make_once, moving, refusal


def command(*words: object) -> list[str]:
    return ["upscale", *map(str, words), "--engine", "openvino"]


def upscale(*words: object) -> int:
    return main(command(*words))


def small(factor: int = 2) -> Upscaler:
    return Upscaler(SRVGG.from_weights(small_weights(), engine="openvino"), factor, 1.0)


def test_rate_and_sound_are_those_of_the_video(tmp_path: Path) -> None:
    source, target = write_source(tmp_path / "in.mp4", "aac"), tmp_path / "out.mp4"
    save_file(small_weights(), tmp_path / "small.safetensors")
    words = ("--video_path", source, "--rec_path", target, "--factor", 2)
    words += ("--weights", tmp_path / "small.safetensors")
    make_once(target, *command(*words))
    before, after = probe(source), probe(target)
    assert after == before._replace(height=2 * before.height, width=2 * before.width)
    assert packets(target) == packets(source)
    recipe = json.loads((tmp_path / "out.mp4.json").read_text())["recipe"]
    assert recipe["factor"] == 2 and list(recipe["weights"]) == ["small.safetensors"]


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_colours_stay(tmp_path: Path, factor: int) -> None:
    colours = np.array([[[220, 40, 30], [40, 200, 60]], [[30, 60, 210], [240, 230, 200]]], np.uint8)
    write_video(tmp_path / "in.png", colours.repeat(12, 0).repeat(20, 1)[None])
    words = ("--video_path", tmp_path / "in.png", "--rec_path", tmp_path / "out.png")
    assert upscale(*words, "--factor", factor) == 0
    found = read_video(tmp_path / "out.png")[0]
    assert found.shape == (24 * factor, 40 * factor, 3)
    centres = found[6 * factor :: 12 * factor, 10 * factor :: 20 * factor].astype(int)
    assert np.abs(centres - colours).max() <= 8


def test_tiles_leave_no_seams() -> None:
    """The packaged network, in tiles that are hardly larger than their margins, is the same as on the whole
    image.
    """
    enlarge = open_upscaler(None, 3, 0.7, open_engine("openvino"))
    images = np.random.default_rng(0).random((1, 3, 70, 101), np.float32)
    tiled = enlarge.in_tiles(images, enlarge.compute, tile=56)
    np.testing.assert_allclose(tiled, enlarge.compute(images), atol=1e-4)


@pytest.mark.parametrize("length", [1, 4, 7])
def test_batches(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    frames = moving(length, height=20, width=30)
    alone = [next(small()(iter(frame[None]))) for frame in frames]
    monkeypatch.setattr(module, "TILE", 45)  # of three frames
    together = list(small()(iter(frames)))
    assert len(together) == length
    for found, expected in zip(together, alone, strict=True):
        assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.slow
def test_weights_of_rgt(tmp_path: Path) -> None:
    write_video(tmp_path / "in.mp4", moving(2, height=20, width=30))
    save_file(dict(tiny_weights()), tmp_path / "rgt.safetensors")
    words = ("--video_path", tmp_path / "in.mp4", "--rec_path", tmp_path / "out.mp4", "--factor", 2)
    assert upscale(*words, "--weights", tmp_path / "rgt.safetensors") == 0
    assert probe(tmp_path / "out.mp4")[2:] == (40, 60)


def test_a_folder_of_videos_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, results = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    write_video(folder / "a.gif", moving(4, height=20, width=30), fps=10)
    write_video(folder / "b.jpg", moving(1, height=20, width=30))
    (folder / "c.mp4").write_bytes(b"no video")
    save_file(small_weights(), tmp_path / "small.safetensors")
    words = ("--weights", tmp_path / "small.safetensors", "--factor", 2)
    assert upscale("--video_path", folder, "--rec_path", results, *words) == 1
    names = sorted(path.name for path in results.iterdir())
    assert names == ["a.mp4", "a.mp4.json", "b.png", "b.png.json"]
    assert probe(results / "a.mp4").fps == 10 and "skipping c.mp4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--factor", "5"], "factor"),
        (["--denoise", "2"], "denoise 2.0 is out of range"),
        (["--weights", "missing.pth"], r"weights missing\.pth do not exist"),
        (["--weights", "."], r"weights \. are a folder: name the file"),
        (["--weights", "in.mp4"], "is not a file of weights"),
        (["--weights", "other.safetensors"], "holds neither SRVGGNetCompact nor RGT"),
        (["--weights", "small.safetensors"], "enlarge 2 times and not 4: use --factor 2"),
        (["--rec_path", "out.webm"], r"out\.webm cannot be written: choose a name that ends in \.mp4"),
        (["--video_path", "still.png"], r"out\.mp4 cannot be written: choose a name that ends in \.png"),
        (["--rec_path", "in.mp4"], r"in\.mp4 exists and was made otherwise"),
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
    save_file(small_weights(), tmp_path / "small.safetensors")
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    found = refusal(capsys, *command("--video_path", "in.mp4", "--rec_path", "out.mp4", *words))
    assert re.search(message, found), found
    assert not (tmp_path / "out.mp4").exists()
