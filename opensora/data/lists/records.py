"""Annotation files (.json, .jsonl, .csv) of any size, read record by record.

`scan` reads a file in pieces and yields each record with its place; `read` reads one record again by its
place.
"""

import codecs
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

PIECE = 1 << 20
"""Bytes read at a time."""
LARGEST = 1 << 24
"""Maximum bytes of a record; memory never holds more than that and a piece."""
SPACE = " \t\r\n"
BOM = codecs.BOM_UTF8
DECODER = json.JSONDecoder()


class Record(NamedTuple):
    """A record and its place in the file, in bytes."""

    offset: int
    length: int
    content: dict[str, Any]


def scan(path: Path, names: bool = False) -> Iterator[Record]:
    """Yield every record of an annotation file. With `names` a text in a list stands for {"path": text}.

    Raises ValueError that names the file and the place where it cannot be read.
    """
    scanner = SCANNERS.get(path.suffix.lower())
    if scanner is None:
        raise ValueError(
            f"annotation file {path} ends in none of {', '.join(SCANNERS)}: convert it to one of them"
        )
    if not path.is_file():
        raise ValueError(f"annotation file {path} does not exist: check the path")
    try:
        with open(path, "rb") as file:
            for record in scanner(file):
                if names and isinstance(record.content, str):
                    record = record._replace(content={"path": record.content})
                if not isinstance(record.content, dict):
                    kind = type(record.content).__name__
                    raise ValueError(f"the record at byte {record.offset} is a {kind}, not an object")
                yield record
    except (ValueError, RecursionError) as error:
        raise ValueError(f"annotation file {path} cannot be read: {error}") from error


def read(path: Path, offset: int, length: int) -> dict[str, Any]:
    """Read one record at the place that `scan` gave. Raises ValueError if the file has changed since."""
    with open(path, "rb") as file:
        columns = _columns(file) if path.suffix.lower() == ".csv" else None
        file.seek(offset)
        content = file.read(length)
    try:
        record: dict[str, Any] = json.loads(content) if columns is None else _row(columns, content)
    except (ValueError, RecursionError) as error:
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
    for offset, line in _lines(file):
        if line.strip().removeprefix(BOM):
            try:
                yield Record(offset, len(line), json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"the line at byte {offset} is not an object ({error.msg})") from error


def _scan_csv(file: BinaryIO) -> Iterator[Record]:
    columns = _columns(file)
    first, rows = file.tell(), b""
    for offset, line in _lines(file):
        first = first if rows else offset
        rows += line
        # Quoted fields may hold line breaks. Quotes inside a field are doubled, so a complete row has an even
        # number.
        if rows.count(b'"') % 2 == 0:
            if rows.strip():
                yield Record(first, len(rows), _row(columns, rows))
            rows = b""
        elif len(rows) > LARGEST:
            break
    if rows:
        raise ValueError(f"a quote in the row at byte {first} is not closed")


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    offset = file.tell()
    while line := file.readline(LARGEST):
        yield offset, line
        offset += len(line)


def _columns(file: BinaryIO) -> list[str]:
    return next(csv.reader([file.readline(LARGEST).decode("utf-8-sig")], skipinitialspace=True), [])


def _row(columns: list[str], content: bytes) -> dict[str, Any]:
    cells = next(csv.reader(content.decode().splitlines(keepends=True), skipinitialspace=True))
    return {name.strip(): cell for name, cell in zip(columns, cells, strict=False)}


SCANNERS = {".json": _scan_json, ".jsonl": _scan_lines, ".csv": _scan_csv}
