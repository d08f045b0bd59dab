"""Lists of files: a name a line, or a table with a column of names."""

import os
from collections.abc import Iterator
from pathlib import Path

from opensora.data.lists.lines import read_lines
from opensora.data.lists.records import scan
from opensora.data.lists.tables import SUFFIXES, read_header, scan_rows

COLUMNS = ("video", "path")
"""Columns that hold the names where no column is given."""


def listed_files(
    listing: str | Path, folder: str | Path, column: str | None = None, repeats: bool = False
) -> list[Path]:
    """The files that a .txt, .csv, .tsv, .json or .jsonl list names, relative to `folder`.

    A .txt file has a name a line; the others a `column` of names, by default "video" or "path", else the
    first column of a table, which needs no header then; a .json list may also hold the names themselves.
    Raises ValueError for a list that cannot be read or names nothing, for a name outside `folder`, and unless
    `repeats` is set for a name that occurs twice.
    """
    listing, folder = Path(listing), Path(folder)
    root = Path(os.path.normpath(folder))
    paths = []
    seen = set()
    for name in _names(listing, column):
        path = Path(os.path.normpath(root / name))
        if not path.is_relative_to(root) or "\0" in name:
            raise ValueError(
                f"data_file_path {listing} names {name!r}, which is outside {folder}: "
                "write paths relative to the folder"
            )
        if path in seen and not repeats:
            raise ValueError(f"data_file_path {listing} names {name!r} twice: remove one")
        seen.add(path)
        paths.append(folder / path.relative_to(root))
    if not paths:
        raise ValueError(f"data_file_path {listing} names no file: write one a line")
    return paths


def _names(listing: Path, column: str | None) -> Iterator[str]:
    if listing.suffix.lower() == ".txt":
        yield from filter(None, map(str.strip, read_lines(listing, "data_file_path")))
        return
    if column is None and listing.suffix.lower() in SUFFIXES and listing.is_file():
        try:
            names = _first_column(listing)
        except ValueError as error:
            raise ValueError(f"data_file_path {listing} cannot be read: {error}") from error
        if names is not None:
            yield from names
            return
    for number, record in enumerate(scan(listing, plain="path" if column is None else None), 1):
        keys = COLUMNS if column is None else (column,)
        name = next((record.content[key] for key in keys if key in record.content), None)
        if record.fault or not isinstance(name, str) or not name:
            wanted = f"no {column!r}" if column is not None else f"none of {', '.join(COLUMNS)}"
            fault = record.fault and f": {record.fault}"
            raise ValueError(
                f"data_file_path {listing}: record {number} has {wanted}, the name of a file{fault}"
            )
        yield name


def _first_column(listing: Path) -> list[str] | None:
    """The first cells of a table without a column of `COLUMNS`; None if it has one.

    The cell of the first row counts only if it is the name of a file, not of a column.
    """
    with open(listing, "rb") as file:
        header = read_header(file, listing.suffix)
        if any(name in header.columns for name in COLUMNS):
            return None
        first = [name for name in header.columns[:1] if Path(name).suffix]
        return first + [row.cells[0].value for row in scan_rows(file, header.delimiter)]
