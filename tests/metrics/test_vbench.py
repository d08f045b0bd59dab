"""`opensora export-vbench`: names, prompts, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from opensora.cli import main
from opensora.media.writer import write_video


@pytest.fixture(autouse=True)
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two videos of one prompt with sidecars, one of another with a caption, and a contact sheet."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "made"
    folder.mkdir()
    for number, prompt in enumerate(("a cat.", "a cat.", "a dog, running")):
        write_video(folder / f"000{number}-a.mp4", np.full((2, 32, 32, 3), 40 * number, np.uint8))
        if number < 2:
            (folder / f"000{number}-a.json").write_text(json.dumps({"recipe": {"prompt": prompt}}))
        else:
            (folder / f"000{number}-a.txt").write_text(prompt)
    write_video(folder / "0000-a.contact.png", np.zeros((1, 32, 32, 3), np.uint8))
    return folder


def run(*words: str) -> int:
    return main(["export-vbench", "--generated_video_dir", "made", "--output_path", "out", *words])


def test_names_are_those_that_vbench_reads(made: Path) -> None:
    for _ in range(2):  # a second run finds everything done
        assert run() == 0
        names = sorted(path.name for path in Path("out/videos").iterdir())
        assert names == ["a cat.-0.mp4", "a cat.-1.mp4", "a dog, running-0.mp4"]
    assert Path("out/videos/a cat.-1.mp4").read_bytes() == (made / "0001-a.mp4").read_bytes()
    prompts = json.loads(Path("out/prompts.json").read_text())
    assert prompts == {name: name.rsplit("-", 1)[0] for name in names}


@pytest.mark.parametrize(
    ("prompt", "message"),
    [("cats and/or dogs", "cannot be the name of a file"), ("long " * 60, "cannot be the name of a file")],
)
def test_prompts_that_are_no_names(
    made: Path, capfd: pytest.CaptureFixture[str], prompt: str, message: str
) -> None:
    (made / "0002-a.txt").write_text(prompt)
    assert run() == 2
    assert message in capfd.readouterr().err and not Path("out").exists()


def test_other_files_in_the_way(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("out/videos").mkdir(parents=True)
    Path("out/videos/other.mp4").touch()
    assert run() == 2
    assert "other.mp4 is not of this run" in capfd.readouterr().err
    Path("out/videos/other.mp4").rename("out/videos/a cat.-0.mp4")
    assert run() == 2
    assert "exists and is another video" in capfd.readouterr().err


def test_videos_of_one_format_with_prompts(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (made / "0002-a.txt").unlink()
    assert run() == 2
    assert "0002-a.mp4 has no prompt" in capfd.readouterr().err
    (made / "0002-a.mp4").rename(made / "0002-a.mkv")
    assert run() == 2
    assert "videos of several formats (.mkv, .mp4)" in capfd.readouterr().err
