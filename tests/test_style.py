"""Lines fit a screen, names mean one thing, and docstrings are written the same way."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIMIT = 110
FOLDERS = ("benchmarks", "docs", "examples", "opensora", "tests", "tools")
URL = re.compile(r"https?://\S+")


def files(suffix: str) -> list[Path]:
    """Files of the repository with this suffix, not those of virtual environments and runs."""
    return sorted(ROOT.glob(f"*{suffix}")) + [
        path for folder in FOLDERS for path in sorted((ROOT / folder).rglob(f"*{suffix}"))
    ]


def long_lines(path: Path) -> list[str]:
    """Lines over the limit that are neither a row of a table nor long because of a URL."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [
        f"{path.relative_to(ROOT)}:{number}"
        for number, line in enumerate(lines, 1)
        if len(URL.sub("", line)) > LIMIT and not (path.suffix == ".md" and line.startswith("|"))
    ]


@pytest.mark.parametrize("suffix", [".md", ".py"])
def test_lines_have_at_most_110_columns(suffix: str) -> None:
    found = [line for path in files(suffix) for line in long_lines(path)]
    assert not found, f"{len(found)} lines are too long: {', '.join(found[:20])}"


def trees() -> list[ast.Module]:
    return [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "opensora").rglob("*.py"))]


def test_a_class_name_means_one_thing() -> None:
    names = Counter(
        node.name.lstrip("_") for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    )
    twice = [name for name, count in names.items() if count > 1]
    assert not twice, f"several classes have the name {', '.join(twice)}: rename all but one"


def test_docstrings_state_what_is_true() -> None:
    kinds = ast.ClassDef | ast.FunctionDef
    texts = [
        ast.get_docstring(node) or ""
        for tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, kinds)
    ]
    inverted = [text for text in texts if text.startswith("Whether ")]
    assert not inverted, f"write `True if ...` in the docstrings of {inverted}"
