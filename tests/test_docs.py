"""The commands that the documents show are commands that the program takes, and the files that they link exist."""

import importlib
import re
import shlex
from dataclasses import is_dataclass
from pathlib import Path

import pytest

from opensora.cli import COMMANDS
from opensora.cli.arguments import parse

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:^|\s)opensora ([^;\n]*)", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?!https?:)([^)#]+)\)")


def shown_commands() -> list[tuple[str, str]]:
    """(file name, the words after `opensora`) of every command in a block of bash."""
    blocks = [(path.name, block) for path in DOCUMENTS for block in BLOCK.findall(path.read_text(encoding="utf-8"))]
    return [(name, words) for name, block in blocks for words in COMMAND.findall(block.replace("\\\n", " "))]


@pytest.mark.parametrize(("document", "line"), shown_commands())
def test_shown_command_is_accepted(document: str, line: str) -> None:
    name, *words = shlex.split(line, comments=True)
    command = importlib.import_module(f"opensora.cli.{name.replace('-', '_')}")
    assert is_dataclass(parse(command.OPTIONS, words, name, COMMANDS[name], command.POSITIONAL))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target
