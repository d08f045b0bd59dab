"""CLIP's metrics from the words of the command line to the figures."""

import json
from pathlib import Path

import numpy as np
import pytest

from opensora.cli import main
from opensora.media.reader import read_video
from opensora.media.writer import write_video
from opensora.models import CLIP
from tests import reference

FOLDER = str(reference.FOLDER / "clip" / "model")


@pytest.fixture(autouse=True)
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A video with a caption beside it, and a picture with a sidecar."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "made"
    folder.mkdir()
    rng = np.random.default_rng(0)
    write_video(folder / "a.mp4", rng.integers(0, 256, (5, 40, 48, 3), np.uint8))
    write_video(folder / "b.png", rng.integers(0, 256, (1, 40, 48, 3), np.uint8))
    (folder / "a.txt").write_text("the red cat\n")
    (folder / "b.json").write_text(json.dumps({"recipe": {"prompt": "the elephant's hat"}}))
    return folder


def run(*words: str) -> int:
    return main(["evaluate", "--generated_video_dir", "made", *words])


def test_scores_are_means_of_cosines(made: Path) -> None:
    assert run("--metric", "clip_score", "clip_temp", "--clip_weights", FOLDER) == 0
    content = json.loads((made / "evaluation.json").read_text())
    model = CLIP.from_pretrained(FOLDER, engine="openvino")
    texts = model.encode_texts(["the red cat", "the elephant's hat"])
    for item, text in zip(content["files"], texts, strict=True):
        vectors = model.encode_images(read_video(made / item["file"]))
        assert item["clip_score"] == pytest.approx(100 * np.maximum(vectors @ text, 0).mean(), abs=1e-3)
        alike = 100 * (vectors[1:] * vectors[:-1]).sum(1)
        assert ("clip_temp" in item) == (len(vectors) > 1)
        if len(vectors) > 1:
            assert item["clip_temp"] == pytest.approx(alike.mean(), abs=1e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metric", "clip_score"], "clip_score needs --clip_weights, the folder https"),
        (["--metric", "clip_score", "--clip_weights", "missing"], "clip_weights missing does not exist"),
        (["--metric", "psnr"], "psnr compares with real videos: name their folder with --real_video_dir"),
    ],
)
def test_bad_options(capfd: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert run(*words) == 2
    assert message in capfd.readouterr().err


def test_a_video_without_a_prompt(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (made / "a.txt").unlink()
    assert run("--metric", "clip_score", "--clip_weights", FOLDER) == 2
    assert "a.mp4 has no prompt: write it to a.txt beside it" in capfd.readouterr().err
