"""The docs match the program: commands parse, links and paths exist, pages are readable."""

import re
import shlex
import subprocess
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from opensora.cli import COMMANDS, command_module, main, parse_command
from opensora.cli.published import ANSWERS
from opensora.train.checkpoint import save_checkpoint

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:^|\s)opensora ([^;\n]*)", re.MULTILINE)
TRAINED = {
    "ema": "17x64x64/diffusion_pytorch_model.safetensors",
    "text_encoder_ema": "text_encoder/model.safetensors",
}
PATH = re.compile(r"`((?:\w+/)+\w+\.(?:py|md|yaml|json))`")
TEST = re.compile(r"`(test_\w+?)(?:_?\.\.\.)?`")
FLAG = re.compile(r"`--(\w+)")
FOREIGN_FLAGS = {"worker_num", "tail_worker_log", "master_port", "join", "node_rank"}  # of msrun
TEST_SOURCES = "".join(
    path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("test_*.py"))
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?!https?:)([^)#]+)\)")


def shown_commands() -> list[tuple[str, str]]:
    """(file name, the words after `opensora`) of every command in a block of bash."""
    blocks = [
        (path.name, block) for path in DOCUMENTS for block in BLOCK.findall(path.read_text(encoding="utf-8"))
    ]
    return [(name, words) for name, block in blocks for words in COMMAND.findall(block.replace("\\\n", " "))]


@cache
def known_flags() -> set[str]:
    """Options of every command, and the flags of the published version that it accepts or rejects."""
    flags = {"help", "config"}
    for name in COMMANDS:
        options = command_module(name).OPTIONS
        flags |= {item.name for item in fields(options)} | set(getattr(options, "ALIASES", {}))
        flags |= set(ANSWERS.get(name, {}))
    return flags


@pytest.mark.parametrize(("document", "line"), shown_commands())
def test_shown_command_is_accepted(document: str, line: str) -> None:
    name, *words = shlex.split(line, comments=True)
    assert is_dataclass(parse_command(name, words))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_files_and_tests_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for name in PATH.findall(text):
        assert any((ROOT / place / name).exists() for place in (".", "opensora", "tests")), name
    for name in TEST.findall(text):
        assert f"def {name}" in TEST_SOURCES, name


def test_pages_that_the_code_names_exist() -> None:
    for folder in ("opensora", "tests", "benchmarks", "scripts"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".yaml", ".sh", ".txt"):
                for page in re.findall(r"\bdocs/[\w/-]+\.md", path.read_text(encoding="utf-8")):
                    assert (ROOT / page).exists(), f"{path.relative_to(ROOT)} names {page}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_flags_exist(document: Path) -> None:
    unknown = set(FLAG.findall(document.read_text(encoding="utf-8"))) - known_flags() - FOREIGN_FLAGS
    assert not unknown


def test_the_glossary_stays_short() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^\| (?!term |-)([^|]+) \|", text, re.MULTILINE)
    assert 10 <= len(terms) <= 20 and len(set(terms)) == len(terms)


@pytest.mark.parametrize(("page", "name"), [("tutorial.md", "mine"), ("results/overfit.md", "clips")])
def test_a_run_becomes_a_model_folder(
    page: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands between training and generating put the trained weights into a copy of the demo model."""
    monkeypatch.chdir(tmp_path)
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
