"""Prompts of a user: sentences, or files of sentences."""

import logging
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from opensora.data.lists.lines import lines_of, read_lines
from opensora.data.lists.records import scan
from opensora.data.lists.tables import by_column, read_header, scan_rows

log = logging.getLogger(__name__)

COLUMNS = ("prompt", "caption", "captions", "cap", "text")
FILE_ENDING = re.compile(
    r"\.(txt|csv|tsv|jsonl?|ya?ml|xlsx?|ods|md|docx?|rtf|parquet|mp4|mov|png|jpe?g|gif|webp)$", re.I
)
"""Endings by which a single word is the name of a file and no prompt."""
STDIN = "-"
COLUMN_NAME = re.compile(r"[^\W\d]\w{0,30}")
LONGEST_NAME = 255  # bytes of a file's name


def read_prompts(items: Iterable[str]) -> list[str]:
    """Prompts in order, stripped. An item is a prompt, or the path of a file of prompts (`read_prompt_file`).

    A word that is an existing file or ends like one is a file, and "-" is the standard input, with a prompt a
    line. An item with a space at its start is a prompt. Raises ValueError for an empty prompt, and for a file
    that is missing or of another kind.
    """
    prompts: list[str] = []
    for item in items:
        if not item.strip():
            raise ValueError("a prompt is empty: write what the video should show")
        if item == STDIN:
            prompts += _from_stdin()
        elif _names_file(item):
            prompts += read_prompt_file(item)
        else:
            prompts.append(_encodable(item.strip()))
    return prompts


def as_prompt(prompt: str) -> str:
    """The prompt as a word of a command line, where it is neither an option nor a file."""
    return f" {prompt}" if prompt.startswith("-") or _names_file(prompt) else prompt


def read_prompt_file(path: str | Path) -> list[str]:
    """The prompts of a file.

    .txt: one prompt a line; blank lines are skipped. .csv, .tsv: the column prompt, caption, captions, cap or
    text, else the first; without a header, every row is a prompt. .json, .jsonl: a list of prompts, or of
    objects with one of these names. Raises ValueError for a file that is missing, damaged, of another kind or
    without prompts.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.is_file():
        raise ValueError(f"prompt file {path} does not exist: check the path")
    if suffix not in READERS:
        raise ValueError(
            f"{path} is a file, but prompts are read from {', '.join(READERS)}: rename it, "
            "or start the prompt with a space if it is no file"
        )
    try:
        prompts = [_encodable(text.strip()) for text in READERS[suffix](path) if text.strip()]
    except ValueError as error:
        raise ValueError(f"prompt file {path} cannot be read: {error}") from error
    if not prompts:
        raise ValueError(f"prompt file {path} holds no prompt: write one a line")
    return prompts


def _names_file(item: str) -> bool:
    """True if an item is the path of a file: a single word that ends like one, or one that exists."""
    if item[0].isspace() or "\0" in item or max(map(len, os.fsencode(item).split(b"/"))) > LONGEST_NAME:
        return False
    return (len(item.split()) == 1 and FILE_ENDING.search(item) is not None) or os.path.isfile(item)


def _encodable(prompt: str) -> str:
    """The prompt. Raises ValueError for one with bytes that are not UTF-8."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the prompt {prompt[:80]!r} is not UTF-8 text: write it again") from error
    return prompt


def _from_stdin() -> list[str]:
    prompts = [line.strip() for line in lines_of(sys.stdin.buffer, "the standard input") if line.strip()]
    if not prompts:
        raise ValueError("the standard input holds no prompt: write one a line")
    return prompts


def _from_records(path: Path) -> list[str]:
    prompts: list[Any] = []
    for number, record in enumerate(scan(path, plain="prompt"), 1):
        value = next((record.content[name] for name in COLUMNS if name in record.content), None)
        texts = value if isinstance(value, list) else [value]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"record {number} has no text under {', '.join(COLUMNS)}")
        prompts += texts
    return prompts


def _from_table(path: Path) -> list[str]:
    with open(path, "rb") as file:
        header = read_header(file, path.suffix)
        rows = [row.cells for row in scan_rows(file, header.delimiter)]
    names, known = [name.lower() for name in header.columns], ", ".join(COLUMNS)
    column = next((names.index(name) for name in COLUMNS if name in names), None)
    if column is None and len(names) > 1 and all(map(COLUMN_NAME.fullmatch, names)):
        column, first = 0, header.columns[0]
        log.info("%s: no column is named %s; reading prompts from the first, %r", path, known, first)
    if column is not None:
        name = header.columns[column]
        return [by_column(cells, header, texts=(name,)).get(name, "") for cells in rows]
    rows.insert(0, header.cells)
    if any(len(cells) > 1 for cells in rows) and len({len(cells) for cells in rows}) == 1:
        spaced = any(cell.raw.startswith(" ") for cells in rows for cell in cells[1:])
        if not spaced:
            raise ValueError(f"its columns have no names: write a first row with one of {known}")
    log.info("%s: the first row names no column %s, so every row is a prompt", path, known)
    return [
        cells[0].value if len(cells) == 1 else header.delimiter.join(cell.raw for cell in cells)
        for cells in rows
    ]


READERS: dict[str, Callable[[Path], list[str]]] = {
    ".txt": lambda path: read_lines(path, "prompt file"),
    ".csv": _from_table,
    ".tsv": _from_table,
    ".json": _from_records,
    ".jsonl": _from_records,
}
