"""Data lists and their records.

A line of a list is a data set: `folder, annotations` or `folder, text embeddings, annotations`.

    entries = Entries(read_data_list("video_data.txt"))
    entries[0]          # Entry(number, segment, captions, source), read from the annotation file on demand

Memory holds four numbers for each record, 26 bytes: its place in the annotation file, its data set and its
number.
"""

import csv
import hashlib
import json
import os
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from opensora.console import shortened
from opensora.data.clips import Segment
from opensora.data.lists.lines import read_lines
from opensora.data.lists.records import read, scan

LONGEST_LINE, MOST_CELLS = 3 * 4096, 64
"""Characters of three paths; and cells, because the ways to join them grow with their square."""
FORM = "`folder, annotations` or `folder, text embeddings, annotations`"


class AnnotatedFolder(NamedTuple):
    """A data set, one line of a data list."""

    folder: Path
    text_folder: Path | None
    annotations: Path


@dataclass(frozen=True)
class Entry:
    """A video or picture with its captions.

    `number` counts the valid records of the list, `source` its data sets.
    """

    number: int
    segment: Segment
    captions: tuple[str, ...]
    source: int

    @property
    def path(self) -> Path:
        return self.segment.path


def read_data_list(path: str | Path) -> list[AnnotatedFolder]:
    """Read the data sets of a list. Empty lines and lines that begin with # are skipped.

    Paths may be quoted. Unquoted paths may hold commas: of the ways to split a line, the one that exists is
    taken. A relative path starts at the working directory, or else at the list's folder. Raises ValueError
    for a line whose folder or annotations do not exist.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"data list {path} does not exist: check the path, or make it with `opensora prepare-data FOLDER`"
        )
    lines = read_lines(path, "data list")
    sources = [
        _parse_line(path, number, line)
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not sources:
        raise ValueError(f"data list {path} names no data set: write one `folder, annotations` a line")
    return sources


def _parse_line(data_list: Path, number: int, line: str) -> AnnotatedFolder:
    if len(line) > LONGEST_LINE:
        raise ValueError(f"{data_list} line {number} has {len(line):,} characters: write {FORM}")
    cells = next(csv.reader([line], skipinitialspace=True)) if '"' in line else line.split(",")
    if len(cells) > MOST_CELLS:
        raise ValueError(
            f"{data_list} line {number} has {len(cells) - 1} commas: "
            "put paths that hold some in double quotes"
        )
    splits = [[_resolve(data_list, column) for column in columns] for columns in _splits(cells)]
    usable = [paths for paths in splits if os.path.isdir(paths[0]) and os.path.isfile(paths[-1])]
    if not usable:
        folder, annotations = _resolve(data_list, cells[0]), _resolve(data_list, cells[-1])
        what, place = ("annotation file", annotations) if os.path.isdir(folder) else ("folder", folder)
        missing = f"{what} {shortened(str(place), 200)}"
        raise ValueError(f"{data_list} line {number}: {missing} does not exist: write {FORM}")
    # Text embeddings that do not exist yet come last, so that a comma in a path is not taken for a third
    # column.
    paths = min(usable, key=lambda paths: 1 if len(paths) == 2 else 0 if paths[1].is_dir() else 2)
    return AnnotatedFolder(paths[0], paths[1] if len(paths) == 3 else None, paths[-1])


def _splits(cells: list[str]) -> Iterator[list[str]]:
    """The ways to join a line's cells to two or three columns, because a path may hold commas."""
    for columns in (2, 3):
        for ends in combinations(range(1, len(cells)), columns - 1):
            yield [",".join(cells[first:end]) for first, end in pairwise((0, *ends, len(cells)))]


def _resolve(data_list: Path, text: str) -> Path:
    path = Path(text.strip())
    return path if os.path.exists(path) else data_list.parent / path  # exists() raises for names too long


class Digests(NamedTuple):
    """sha256 of a data set's captions, and of its paths and frame ranges. A cache stores both."""

    captions: str
    clips: str


class Entries(Sequence[Entry]):
    """The valid records of a data list, in order.

    `rejected` counts the other records by reason, and `examples` names the first record of each reason.
    `digests` has the digests of each data set.
    """

    def __init__(
        self,
        sources: Sequence[AnnotatedFolder],
        only_existing: bool = False,
        path: str = "path",
        cap: str = "cap",
    ) -> None:
        """Index the records of all data sets.

        only_existing: leave out records whose file is missing; the others keep their numbers. path, cap: the
        annotations' names of these two columns. Raises ValueError for a file that cannot be read.
        """
        self.sources, self._columns = list(sources), (path, cap)
        self._folders = [os.path.abspath(source.folder) for source in sources]
        self.rejected: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.digests: list[Digests] = []
        places, numbers, self.valid = (array("q"), array("L"), array("H")), array("q"), 0
        for source in range(len(self.sources)):
            captions, clips = hashlib.sha256(), hashlib.sha256()
            for record in scan(self.sources[source].annotations, texts=(cap,)):
                captions.update(captions_bytes(record.content, cap))
                if record.fault:
                    place = f"the row at byte {record.offset} of {self.sources[source].annotations}"
                    self._reject(record.fault, place)
                    continue
                entry = self._checked(record.content, self.valid, source)
                if entry is None:
                    continue
                clips.update(json.dumps([record.content[path], _frame_range(record.content)]).encode())
                self.valid += 1
                if only_existing and not entry.path.exists():
                    self._reject("the file does not exist", entry.path)
                    continue
                for column, value in zip(places, (record.offset, record.length, source), strict=True):
                    column.append(value)
                numbers.append(entry.number)
            self.digests.append(Digests(captions.hexdigest(), clips.hexdigest()))
        self._offsets, self._lengths, self.source_numbers = (np.array(column) for column in places)
        self.numbers = np.array(numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Any:
        source = int(self.source_numbers[index])
        place = int(self._offsets[index]), int(self._lengths[index])
        content = read(self.sources[source].annotations, *place, texts=self._columns[1:])
        return self._entry(content, int(self.numbers[index]), source)

    def _checked(self, content: dict[str, Any], number: int, source: int) -> Entry | None:
        try:
            return self._entry(content, number, source)
        except ValueError as error:
            self._reject(str(error), content.get(self._columns[0], "a record without a path"))
            return None

    def _reject(self, reason: str, example: Any) -> None:
        self.rejected[reason] += 1
        self.examples.setdefault(reason, str(example))

    def _entry(self, content: dict[str, Any], number: int, source: int) -> Entry:
        path = content.get(self._columns[0])
        if not isinstance(path, str) or not path:
            raise ValueError(f"the record has no {self._columns[0]}")
        place = os.path.normpath(os.path.join(self._folders[source], path))
        if not place.startswith(os.path.join(self._folders[source], "")):
            raise ValueError("the path leaves the folder of its data set")
        captions = captions_of(content, self._columns[1])
        if not captions:
            raise ValueError(f"{self._columns[1]} is neither a caption nor a list of captions")
        start, end = _frame_range(content) or (0, None)
        return Entry(number, Segment(Path(place), start, end), captions, source)


def captions_of(content: dict[str, Any], column: str) -> tuple[str, ...]:
    """The captions of a record; none if the column is neither a text nor a list of texts."""
    value = content.get(column)
    captions = tuple(value) if isinstance(value, list) else (value,)
    return captions if all(isinstance(caption, str) for caption in captions) else ()


def captions_bytes(content: dict[str, Any], column: str) -> bytes:
    """The part of a record in the digest of its data set's captions."""
    return json.dumps(captions_of(content, column)).encode()


def _frame_range(content: dict[str, Any]) -> tuple[int, int] | None:
    """frame_idx "12:77" -> (12, 77), the first frame and the one after the last; None without the field."""
    text = content.get("frame_idx")
    if text is None or text == "":
        return None
    found = re.fullmatch(r"\s*(\d+)\s*:\s*(\d+)\s*", text) if isinstance(text, str) else None
    if found is None or int(found[1]) >= int(found[2]):
        raise ValueError("frame_idx is not a range of frames such as 0:65")
    return int(found[1]), int(found[2])
