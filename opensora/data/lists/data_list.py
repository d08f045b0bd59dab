"""Data lists and what they name: one data set a line, `folder, annotations` or `folder, text embeddings, annotations`.

    entries = Entries(read_data_list("video_data.txt"))
    entries[0]          # Entry(number, path, captions, frames, source): read from the annotation file when it is asked for

In memory are, for each record, two numbers, its place in its file and its data set: 26 bytes.
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

from opensora.data.lists.records import read, scan


class Source(NamedTuple):
    """A line of a data list."""

    folder: Path
    text_folder: Path | None
    annotations: Path


@dataclass(frozen=True)
class Entry:
    """A video or picture of a data set. `number` counts the valid records of the list; `frames` is the part to use, (start, end)."""

    number: int
    path: Path
    captions: tuple[str, ...]
    frames: tuple[int, int] | None
    source: int


def read_data_list(path: str | Path) -> list[Source]:
    """The data sets that a list names. Empty lines and lines that begin with # are passed over.

    Paths may be quoted, and need not be where they hold commas: of the ways to cut a line, the one that exists is taken.
    A relative path counts from the working directory, or else from the list's folder. Raises ValueError for a line that names nothing.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"data list {path} does not exist: check the path, or make it with `opensora prepare-data FOLDER`"
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"data list {path} is no UTF-8 text: save it as UTF-8") from error
    sources = [
        _source(path, number, line)
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not sources:
        raise ValueError(f"data list {path} names no data set: write one `folder, annotations` a line")
    return sources


def _source(data_list: Path, number: int, line: str) -> Source:
    cells = next(csv.reader([line], skipinitialspace=True)) if '"' in line else line.split(",")
    cuts = [[_found(data_list, column) for column in columns] for columns in _cuts(cells)]
    usable = [paths for paths in cuts if paths[0].is_dir() and paths[-1].is_file()]
    if not usable:
        folder, annotations = _found(data_list, cells[0]), _found(data_list, cells[-1])
        missing = f"folder {folder}" if not folder.is_dir() else f"annotation file {annotations}"
        raise ValueError(
            f"{data_list} line {number}: {missing} does not exist: write `folder, annotations` or `folder, text embeddings, annotations`"
        )
    # Text embeddings that are not made yet come last, so that a comma in a path is not taken for a third column.
    paths = min(usable, key=lambda paths: 1 if len(paths) == 2 else 0 if paths[1].is_dir() else 2)
    return Source(paths[0], paths[1] if len(paths) == 3 else None, paths[-1])


def _cuts(cells: list[str]) -> Iterator[list[str]]:
    """The ways to join a line's cells to two or three columns, because a path may hold commas."""
    for columns in (2, 3):
        for ends in combinations(range(1, len(cells)), columns - 1):
            yield [",".join(cells[first:end]) for first, end in pairwise((0, *ends, len(cells)))]


def _found(data_list: Path, text: str) -> Path:
    path = Path(text.strip())
    return path if path.exists() else data_list.parent / path


class Digests(NamedTuple):
    """Of a data set's captions, and of its paths and frame ranges."""

    captions: str
    clips: str


class Entries(Sequence[Entry]):
    """The valid records of a data list, in order. `rejected` counts the others by reason, `examples` names the first of each.

    With `only_existing`, records whose file is missing are left out; the others keep their numbers. `digests` are of each
    data set; they tell caches whether they belong to it.
    """

    def __init__(
        self, sources: Sequence[Source], only_existing: bool = False, path: str = "path", cap: str = "cap"
    ) -> None:
        """path, cap: the names that the annotations give to these two columns. Raises ValueError for a file that cannot be read."""
        self.sources, self._columns = list(sources), (path, cap)
        self._folders = [os.path.abspath(source.folder) for source in sources]
        self.rejected: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.digests: list[Digests] = []
        places, numbers, self.valid = (array("q"), array("L"), array("H")), array("q"), 0
        for source in range(len(self.sources)):
            captions, clips = hashlib.sha256(), hashlib.sha256()
            for record in scan(self.sources[source].annotations):
                captions.update(captions_bytes(record.content, cap))
                entry = self._checked(record.content, self.valid, source)
                if entry is None:
                    continue
                clips.update(json.dumps([record.content[path], entry.frames]).encode())
                self.valid += 1
                if only_existing and not entry.path.is_file():
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
        content = read(self.sources[source].annotations, int(self._offsets[index]), int(self._lengths[index]))
        return self._entry(content, int(self.numbers[index]), source)

    def _checked(self, content: dict[str, Any], number: int, source: int) -> Entry | None:
        try:
            return self._entry(content, number, source)
        except ValueError as error:
            self._reject(str(error), content.get(self._columns[0], "a record without a path"))
            return None

    def _reject(self, reason: str, what: Any) -> None:
        self.rejected[reason] += 1
        self.examples.setdefault(reason, str(what))

    def _entry(self, content: dict[str, Any], number: int, source: int) -> Entry:
        path = content.get(self._columns[0])
        if not isinstance(path, str) or not path:
            raise ValueError(f"the record has no {self._columns[0]}")
        place = os.path.normpath(os.path.join(self._folders[source], path))
        if not place.startswith(os.path.join(self._folders[source], "")):
            raise ValueError("the path leaves the folder of its data set")
        captions = captions_of(content, self._columns[1])
        if not captions:
            raise ValueError(f"{self._columns[1]} is no caption and no list of captions")
        return Entry(number, Path(place), captions, _frames(content.get("frame_idx")), source)


def captions_of(content: dict[str, Any], column: str) -> tuple[str, ...]:
    """The captions of a record; none where the column holds anything else than a text or a list of texts."""
    value = content.get(column)
    captions = tuple(value) if isinstance(value, list) else (value,)
    return captions if all(isinstance(caption, str) for caption in captions) else ()


def captions_bytes(content: dict[str, Any], column: str) -> bytes:
    """What a record adds to the digest of its data set's captions."""
    return json.dumps(captions_of(content, column)).encode()


def _frames(text: Any) -> tuple[int, int] | None:
    """ "12:77" -> (12, 77): the first frame and the one behind the last."""
    if text is None or text == "":
        return None
    found = re.fullmatch(r"\s*(\d+)\s*:\s*(\d+)\s*", text) if isinstance(text, str) else None
    if found is None or int(found[1]) >= int(found[2]):
        raise ValueError("frame_idx is no range of frames such as 0:65")
    return int(found[1]), int(found[2])
