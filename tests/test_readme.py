"""Every command of the README runs, in its order, on small inputs."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from opensora.cli import main
from opensora.media.reader import probe
from opensora.media.writer import write_video
from tests.data.material import grey
from tests.small_model import make_model

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Shorter, not different.
SHORT = {
    "generate": ["--num_sampling_steps=2"],
    "train": ["--max_train_steps=2", "--batch_size=1", "--lr_warmup_steps=0"],
}


def commands() -> list[list[str]]:
    """The words after `opensora` of every command, block by block."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for block in BLOCK.findall(text) for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("opensora ")]


def prepare_inputs(place: Path) -> None:
    """The files that the README takes as given: prompts, the released model, a folder of clips."""
    (place / "prompts.txt").write_text("a snail on a white background\n")
    (place / "opensora").symlink_to(ROOT / "opensora")
    (place / "examples").mkdir()
    (place / "examples" / "prompt_list_65.txt").write_text("a lake\n")
    model = make_model(place / "Open-Sora-Plan-v1.1.0")
    shutil.move(model / "5x32x32", model / "65x512x512")
    shutil.move(model / "text_encoder", place / "t5-v1_1-xxl")
    (place / "clips").mkdir()
    write_video(place / "clips" / "boat.mp4", grey(17, 64, 64))
    (place / "clips" / "boat.txt").write_text("a paper boat on a pond\n")


@pytest.mark.slow
def test_every_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepare_inputs(tmp_path)
    for name, *words in commands():
        assert main([name, *words, *SHORT.get(name, [])]) == 0, words
    assert [probe(path).frames for path in sorted(Path("rebuilt").glob("*.mp4"))] == [17, 17]
    assert [probe(path).height for path in sorted(Path("large").glob("*.mp4"))] == [256, 256]
    assert [probe(path).frames for path in sorted(Path("smooth").glob("*.mp4"))] == [34, 34]
    assert len(list(Path("gifs").glob("*.gif"))) == 2 and len(list(Path("images").glob("*.png"))) == 1
    assert len(list(Path("release").glob("*.mp4"))) == 1
    assert Path("runs/mine/checkpoints/step-00000002/manifest.json").is_file()
    assert Path("curves.png").is_file()
