"""The docs match the program: commands parse, links and paths exist, pages are readable."""

import re
import shlex
import subprocess
from dataclasses import is_dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from opensora.cli import main, parse_command
from opensora.train.checkpoint import save_checkpoint

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:^|\s)opensora ([^;\n]*)", re.MULTILINE)
TRAINED = {
    "ema": "17x64x64/diffusion_pytorch_model.safetensors",
    "text_encoder_ema": "text_encoder/model.safetensors",
}
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?!https?:)([^)#]+)\)")


def shown_commands() -> list[tuple[str, str]]:
    """(file name, the words after `opensora`) of every command in a block of bash."""
    blocks = [
        (path.name, block) for path in DOCUMENTS for block in BLOCK.findall(path.read_text(encoding="utf-8"))
    ]
    return [(name, words) for name, block in blocks for words in COMMAND.findall(block.replace("\\\n", " "))]


@pytest.mark.parametrize(("document", "line"), shown_commands())
def test_shown_command_is_accepted(document: str, line: str) -> None:
    name, *words = shlex.split(line, comments=True)
    assert is_dataclass(parse_command(name, words))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize(("page", "name"), [("tutorial.md", "mine"), ("results/overfit.md", "clips")])
def test_a_run_becomes_a_model_folder(
    page: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands between training and generating put the trained weights into a copy of the demo model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "opensora").symlink_to(ROOT / "opensora")
    learned = {
        group: {
            key: 2 * value.astype(np.float32)
            for key, value in load_file(ROOT / "opensora" / "demo" / file).items()
        }
        for group, file in TRAINED.items()
    }
    save_checkpoint(
        Path("runs") / name,
        1,
        {"model": learned["ema"], "text_encoder": learned["text_encoder_ema"], **learned},
        {},
    )
    blocks = BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))
    block = next(block for block in blocks if f"opensora convert --src runs/{name} " in block)
    for line in re.findall(r"^(?:mkdir|cp|rm|opensora convert) .*", block, re.MULTILINE):
        program, *words = shlex.split(line)
        if program == "opensora":
            assert main(words) == 0
        else:
            subprocess.run([program, *words], check=True)
    for group, file in TRAINED.items():
        written = load_file(Path("models") / name / file)
        assert all(
            np.array_equal(written[key], value.astype(written[key].dtype))
            for key, value in learned[group].items()
        )
