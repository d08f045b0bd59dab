"""Folders of numbered pictures as videos, as Sky Timelapse stores them."""

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from opensora.media import pictures
from opensora.media.formats import STILL_SUFFIXES
from opensora.media.timeline import DEFAULT_FPS, Timeline

NUMBER = re.compile(r"\d+")


class SequenceFacts(NamedTuple):
    """A folder's properties: its pictures in order, and height and width of the first."""

    timeline: Timeline
    height: int
    width: int
    files: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width


def numbered_pictures(folder: Path) -> list[str]:
    """The names of a folder's pictures (.png, .jpg, .jpeg) with a number, in the order of the last number
    of each name.
    """
    found = []
    for path in folder.iterdir():
        if path.suffix.lower() in STILL_SUFFIXES and not path.name.startswith("."):
            numbers = NUMBER.findall(path.stem)
            if numbers:
                found.append((int(numbers[-1]), path.name))
    return [name for _, name in sorted(found)]


def describe(folder: Path) -> SequenceFacts:
    """Raises ValueError for a folder without numbered pictures, and what Pillow raises for a damaged one."""
    names = numbered_pictures(folder)
    if not names:
        raise ValueError("it has no numbered pictures (.png, .jpg, .jpeg), such as frame_0001.jpg")
    first = pictures.describe(folder / names[0])
    timeline = Timeline(len(names), Fraction(DEFAULT_FPS), last=len(names) - 1)
    return SequenceFacts(timeline, *first.size, tuple(names))


def read_frames(
    folder: Path, facts: SequenceFacts, slots: Iterator[int], size: tuple[int, int] | None
) -> Iterator[np.ndarray]:
    """Yield the pictures at `slots`, each uint8 (H, W, 3), resized to `size` if given.

    Raises ValueError for a picture of another size than the first.
    """
    for slot in slots:
        name = facts.files[slot]
        picture = pictures.describe(folder / name)
        if picture.size != facts.size:
            height, width = picture.size
            raise ValueError(
                f"{name} is {height}x{width}, but the first picture {facts.height}x{facts.width}"
            )
        yield next(iter(pictures.read_frames(folder / name, picture, iter([0]), size)))
