"""Prompts of a user: sentences, or files of sentences."""

import csv
import logging
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger(__name__)

COLUMNS = ("prompt", "caption", "cap", "text")


def read_prompts(items: Iterable[str]) -> list[str]:
    """Prompts in order, stripped. An item is a prompt, or the path of a .txt or .csv file of prompts.

    .txt: one prompt a line; blank lines are skipped. .csv: the column prompt, caption, cap or text, else the
    first. Raises ValueError for an empty prompt, and for a file that is missing, not UTF-8, or without
    prompts.
    """
    prompts: list[str] = []
    for item in items:
        found = _read_file(Path(item)) if _names_file(item) else [item.strip()]
        if not any(found):
            raise ValueError("a prompt is empty: write what the video should show")
        prompts.extend(found)
    return prompts


def _names_file(item: str) -> bool:
    """A sentence may end in "notes.txt" too: with spaces in it, it is a path only if such a file exists."""
    if not item.lower().endswith((".txt", ".csv")):
        return False
    return len(item.split()) == 1 or Path(item).is_file()


def _read_file(path: Path) -> list[str]:
    if not path.is_file():
        raise ValueError(f"prompt file {path} does not exist: check the path")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = (
                _column(path, csv.reader(file)) if path.suffix.lower() == ".csv" else file.read().splitlines()
            )
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"prompt file {path} cannot be read ({error}): save it as UTF-8 text") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ValueError(f"prompt file {path} holds no prompt: write one a line")
    return prompts


def _column(path: Path, rows: Iterable[list[str]]) -> list[str]:
    header, *entries = [row for row in rows if row] or [[""]]
    names = [name.strip().lower() for name in header]
    index = next((names.index(name) for name in COLUMNS if name in names), 0)
    if names[index] not in COLUMNS:
        known = ", ".join(COLUMNS)
        log.info("%s: no column is named %s; reading prompts from the first, %r", path, known, header[index])
    return [row[index] for row in entries if index < len(row)]
