"""Tables (.csv, .tsv) as spreadsheets and people write them, row by row.

A row ends at LF, CR LF or CR and nowhere else. A field in quotes may hold delimiters, line breaks and doubled
quotes. A quote that does not open and close a field so is a character like any other: an inch mark.
"""

import io
import re
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from re import Pattern
from typing import Any, BinaryIO, NamedTuple

PIECE = 1 << 20
"""Bytes read at a time."""
LARGEST = 1 << 24
"""Maximum bytes of a row, and of a record in other formats."""
BOM = b"\xef\xbb\xbf"
DELIMITERS = (",", "\t", ";")
SUFFIXES = (".csv", ".tsv")


class Cell(NamedTuple):
    """A field: its value, how it stands in the file, and whether it is a quoted one."""

    value: str
    raw: str
    quoted: bool


class Row(NamedTuple):
    """A row and its place in the file, in bytes."""

    offset: int
    length: int
    cells: list[Cell]


class Header(NamedTuple):
    """The first row of a table, the names of its columns, and what separates fields."""

    cells: list[Cell]
    columns: list[str]
    delimiter: str


def scan_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the offset and bytes of every line from the file's position, with its end: LF, CR LF or CR.

    Raises ValueError for a line of more than `LARGEST` bytes.
    """
    offset, rest = file.tell(), b""
    while piece := file.read(PIECE):
        *lines, rest = (rest + piece).splitlines(keepends=True)
        for line in lines:
            yield offset, line
            offset += len(line)
        if len(rest) > LARGEST:
            raise ValueError(f"the line at byte {offset} is longer than {LARGEST:,} bytes")
    for line in rest.splitlines(keepends=True):
        yield offset, line
        offset += len(line)


def read_header(file: BinaryIO, suffix: str) -> Header:
    """Read the first row of a table; afterwards the file's position is behind it.

    suffix: .tsv has tabs; another table has the first of `DELIMITERS` that its first line holds, or the one
    that a line `sep=;` states. Raises ValueError for text that is not UTF-8.
    """
    start = len(BOM) if file.read(len(BOM)) == BOM else 0
    file.seek(start)
    first = _decode(*next(scan_lines(file), (start, b"")))
    stated = re.fullmatch(r"sep=([,;\t])\s*", first, re.IGNORECASE)  # a line of Excel's before the header
    if stated is not None:
        start += len(first.encode())
        first = stated[1]
    found = (delimiter for delimiter in DELIMITERS if delimiter in first)
    delimiter = "\t" if suffix.lower() == ".tsv" else next(found, ",")
    file.seek(start)
    row = next(scan_rows(file, delimiter), None)
    file.seek(start if row is None else row.offset + row.length)
    cells = [] if row is None else row.cells
    return Header(cells, [cell.value.strip() for cell in cells], delimiter)


def scan_rows(file: BinaryIO, delimiter: str) -> Iterator[Row]:
    """Yield the rows of a table from the file's position, without those that are empty.

    Raises ValueError for text that is not UTF-8.
    """
    lines = _Lines(scan_lines(file))
    while line := lines.take():
        if b'"' not in line[1]:
            cells = _plain_cells(_decode(*line), delimiter)
            if any(cell.raw.strip() for cell in cells):
                yield Row(line[0], len(line[1]), cells)
            continue
        row = _RowParser(_decode(*line), delimiter, lines)
        length = len(line[1]) + sum(len(content) for _, content in row.added)
        if any(cell.value.strip() for cell in row.cells):
            yield Row(line[0], length, row.cells)


def read_row(content: bytes, delimiter: str) -> list[Cell]:
    """The cells of a row from its bytes, which `scan_rows` delimited."""
    first, *rest = scan_lines(io.BytesIO(content))
    return _RowParser(_decode(*first), delimiter, _Lines(iter(rest))).cells


def by_column(cells: Sequence[Cell], header: Header, texts: Collection[str] = ()) -> dict[str, Any]:
    """The values of a row by column. texts: columns whose unquoted texts may hold delimiters if it is the
    last.

    Raises ValueError for a row with more cells than columns.
    """
    columns, cells = header.columns, list(cells)
    while len(cells) > len(columns) and not cells[-1].value.strip():
        cells.pop()  # spreadsheets fill up rows
    values = [cell.value for cell in cells]
    if len(cells) > len(columns):
        last = cells[len(columns) - 1 :]
        if columns[-1] not in texts or any(cell.quoted for cell in last):
            raise ValueError(
                f"the row has {len(cells)} cells and the header {len(columns)}: "
                f"put texts that hold {header.delimiter!r} in double quotes"
            )
        values[len(columns) - 1 :] = [header.delimiter.join(cell.raw for cell in last).strip()]
    return dict(zip(columns, values, strict=False))


def _plain_cells(line: str, delimiter: str) -> list[Cell]:
    """The cells of a line without quotes: the quick way for most lines."""
    space = " " if delimiter == "\t" else " \t"
    return [Cell(raw.lstrip(space), raw, False) for raw in line.rstrip("\r\n").split(delimiter)]


class _Lines:
    """Lines that can be put back."""

    def __init__(self, lines: Iterator[tuple[int, bytes]]) -> None:
        self._lines, self._waiting = lines, deque[tuple[int, bytes]]()

    def take(self) -> tuple[int, bytes] | None:
        return self._waiting.popleft() if self._waiting else next(self._lines, None)

    def take_to_quote(self) -> list[tuple[int, bytes]]:
        """The lines up to the next one with a quote that is not doubled; none if it is too far away."""
        taken, size = [], 0
        while size <= LARGEST and (line := self.take()):
            taken.append(line)
            size += len(line[1])
            if b'"' in line[1].replace(b'""', b""):
                return taken
        self.put_back(taken)
        return []

    def put_back(self, lines: Sequence[tuple[int, bytes]]) -> None:
        self._waiting.extendleft(reversed(lines))


class _RowParser:
    """Parses one row. `added`: the lines that its quoted fields take beyond the first."""

    def __init__(self, line: str, delimiter: str, lines: _Lines) -> None:
        self.cells: list[Cell] = []
        self.added: list[tuple[int, bytes]] = []
        self._text, self._lines, self._forms = line, lines, _forms(delimiter)
        self._lenient = True  # whether a closing quote may still follow in the line
        position, separator = 0, True
        while separator:
            cell, position = self._cell(position)
            self.cells.append(cell)
            separator = self._text.startswith(delimiter, position)
            position += len(delimiter)

    def _cell(self, start: int) -> tuple[Cell, int]:
        """The cell that starts there, and where it ends."""
        forms = self._forms
        if forms.opening.match(self._text, start):
            found = forms.quoted.match(self._text, start) or self._over_lines(start)
            if found is None and self._lenient:
                found = forms.lenient.match(self._text, start)
                self._lenient = found is not None
            if found is not None:
                return Cell(found[1].replace('""', '"'), found[0], True), found.end()
        found = forms.plain.match(self._text, start)
        assert found is not None
        return Cell(found[1], found[0], False), found.end()

    def _over_lines(self, start: int) -> re.Match[str] | None:
        """The quoted cell that starts there and ends in one of the next lines, which are added to the row."""
        if not self._forms.unclosed.match(self._text, start):
            return None
        added = self._lines.take_to_quote()
        longer = self._text + "".join(_decode(*line) for line in added)
        found = self._forms.quoted.match(longer, start) if added else None
        if found is None:
            self._lines.put_back(added)
            return None
        self._text = longer
        self.added += added
        self._lenient = True
        return found


class _Forms(NamedTuple):
    """Patterns of a cell: how a quoted one opens, a correct one, one that its line does not close, one with
    quotes inside that are not doubled, and one without quotes around it."""

    opening: Pattern[str]
    quoted: Pattern[str]
    unclosed: Pattern[str]
    lenient: Pattern[str]
    plain: Pattern[str]


@lru_cache
def _forms(delimiter: str) -> _Forms:
    mark, space = re.escape(delimiter), r"[ ]*+" if delimiter == "\t" else r"[ \t]*+"
    end = rf"{space}(?={mark}|\r?\n\Z|\r\Z|\Z)"
    inside = r'((?:[^"]++|"")*+)'
    return _Forms(
        opening=re.compile(rf'{space}"'),
        quoted=re.compile(rf'{space}"{inside}"{end}'),
        unclosed=re.compile(rf'{space}"{inside}\Z'),
        lenient=re.compile(rf'{space}"([^\r\n]*?)"{end}'),
        plain=re.compile(rf"{space}([^{mark}\r\n]*)"),
    )


def _decode(offset: int, line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"the line at byte {offset} is not UTF-8 text: save the file as UTF-8") from error
