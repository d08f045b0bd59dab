"""Annotation files (.json, .jsonl, .csv, .tsv) of any size, read record by record.

`scan` reads a file in pieces and yields each record with its place; `read` reads one record again by its
place.
"""

import codecs
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from opensora.data.lists.tables import (
    BOM,
    LARGEST,
    PIECE,
    SUFFIXES,
    by_column,
    read_header,
    read_row,
    scan_lines,
    scan_rows,
)

SPACE = " \t\r\n"
DECODER = json.JSONDecoder()


class Record(NamedTuple):
    """A record and its place in the file, in bytes. `fault`: the reason why it cannot be used, or ""."""

    offset: int
    length: int
    content: dict[str, Any]
    fault: str = ""


def scan(path: Path, plain: str | None = None, texts: Collection[str] = ()) -> Iterator[Record]:
    """Yield every record of an annotation file.

    plain: a text in a list stands for an object with this name. texts: columns whose texts may hold unquoted
    delimiters, if the column is the table's last. Raises ValueError, with the file and the place that cannot
    be read.
    """
    if path.suffix.lower() not in (*SCANNERS, *SUFFIXES):
        known = ", ".join((*SCANNERS, *SUFFIXES))
        raise ValueError(f"annotation file {path} ends in none of {known}: convert it to one of them")
    if not path.is_file():
        raise ValueError(f"annotation file {path} does not exist: check the path")
    try:
        with open(path, "rb") as file:
            if path.suffix.lower() in SUFFIXES:
                yield from _scan_table(file, path.suffix, texts)
                return
            for record in SCANNERS[path.suffix.lower()](file):
                if plain is not None and isinstance(record.content, str):
                    record = record._replace(content={plain: record.content})
                if not isinstance(record.content, dict):
                    kind = type(record.content).__name__
                    raise ValueError(f"the record at byte {record.offset} is a {kind}, not an object")
                yield record
    except (ValueError, RecursionError) as error:
        raise ValueError(f"annotation file {path} cannot be read: {error}") from error


def read(path: Path, offset: int, length: int, texts: Collection[str] = ()) -> dict[str, Any]:
    """Read one record at the place that `scan` gave. Raises ValueError if the file has changed since."""
    try:
        with open(path, "rb") as file:
            header = read_header(file, path.suffix) if path.suffix.lower() in SUFFIXES else None
            file.seek(offset)
            content = file.read(length)
        if header is not None:
            return by_column(read_row(content, header.delimiter), header, texts)
        record: dict[str, Any] = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"annotation file {path} has changed during the run: start again") from error
    return record


class _Window:
    """A window that moves through a UTF-8 file; reading more drops the text before `position`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.offset = 0  # of text[position] in the file, in bytes
        self.text, self.position = "", 0
        if file.read(len(BOM)) == BOM:
            self.offset = len(BOM)
        else:
            file.seek(0)

    def grow(self) -> bool:
        """Read one more piece.

        False at the end of the file, and if the window is already larger than a record may be.
        """
        if len(self.text) - self.position > LARGEST:
            return False
        piece = self._file.read(PIECE)
        self.text = self.text[self.position :] + self._decoder.decode(piece, final=not piece)
        self.position = 0
        return bool(piece)

    def next_character(self) -> str:
        """Move to the next character that is no space and return it; empty at the end of the file."""
        while True:
            end = self.position
            while end < len(self.text) and self.text[end] in SPACE:
                end += 1
            self.skip(end - self.position)
            if self.position < len(self.text):
                return self.text[self.position]
            if not self.grow():
                return ""

    def skip(self, characters: int) -> int:
        """Move forward, and return the number of bytes."""
        passed = self.text[self.position : self.position + characters]
        length = characters if passed.isascii() else len(passed.encode())
        self.position += characters
        self.offset += length
        return length


def _scan_json(file: BinaryIO) -> Iterator[Record]:
    window = _Window(file)
    if window.next_character() != "[":
        raise ValueError("it must be a list of objects, but does not begin with [")
    window.skip(1)
    if window.next_character() == "]":
        return
    while True:
        window.next_character()
        content, characters = _decode(window)
        yield Record(window.offset, window.skip(characters), content)
        separator = window.next_character()
        if separator == "]":
            return
        if separator != ",":
            raise ValueError(
                f"a comma is missing at byte {window.offset}"
                if separator
                else "the list has no end: the file is truncated"
            )
        window.skip(1)


def _decode(window: _Window) -> tuple[Any, int]:
    """The value at the window's position and its number of characters.

    The window grows while the value is incomplete.
    """
    while True:
        try:
            value, end = DECODER.raw_decode(window.text, window.position)
            return value, end - window.position
        except json.JSONDecodeError as error:
            if not window.grow():
                raise ValueError(
                    f"the object at byte {window.offset} is incomplete or malformed ({error.msg})"
                ) from error


def _scan_lines(file: BinaryIO) -> Iterator[Record]:
    for offset, line in scan_lines(file):
        if line.strip().removeprefix(BOM):
            try:
                yield Record(offset, len(line), json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"the line at byte {offset} is not an object ({error.msg})") from error


def _scan_table(file: BinaryIO, suffix: str, texts: Collection[str]) -> Iterator[Record]:
    header = read_header(file, suffix)
    for row in scan_rows(file, header.delimiter):
        try:
            yield Record(row.offset, row.length, by_column(row.cells, header, texts))
        except ValueError as error:
            yield Record(row.offset, row.length, {}, str(error))


SCANNERS = {".json": _scan_json, ".jsonl": _scan_lines}
