"""Lists of files: a name a line, or a table with a column of names."""

import os
from collections.abc import Iterator
from pathlib import Path

from opensora.data.lists.records import scan

COLUMNS = ("video", "path")
"""Columns that hold the names where no column is given."""


def listed_files(
    listing: str | Path, folder: str | Path, column: str | None = None, repeats: bool = False
) -> list[Path]:
    """The files that a .txt, .csv, .json or .jsonl list names, relative to `folder`.

    A .txt file has a name a line; the others a `column` of names, by default "video" or "path", else the
    first column of a .csv; a .json list may also hold the names themselves. Raises ValueError for a list that
    cannot be read or names nothing, for a name outside `folder`, and unless `repeats` is set for a name that
    occurs twice.
    """
    listing, folder = Path(listing), Path(folder)
    root = Path(os.path.normpath(folder))
    paths = []
    seen = set()
    for name in _names(listing, column):
        path = Path(os.path.normpath(root / name))
        if not path.is_relative_to(root):
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
        yield from _lines(listing)
        return
    for number, record in enumerate(scan(listing, names=column is None), 1):
        content = record.content
        if column is not None:
            name = content.get(column)
        else:
            name = next((content[key] for key in COLUMNS if key in content), None)
            if name is None and listing.suffix.lower() == ".csv":
                name = next(iter(content.values()), None)
        if not isinstance(name, str) or not name:
            wanted = f"no {column!r}" if column is not None else f"none of {', '.join(COLUMNS)}"
            raise ValueError(f"data_file_path {listing}: record {number} has {wanted}, the name of a file")
        yield name


def _lines(listing: Path) -> list[str]:
    try:
        lines = listing.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"data_file_path {listing} cannot be read ({error}): give a UTF-8 text") from error
    return [line.strip() for line in lines if line.strip()]
