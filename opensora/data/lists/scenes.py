"""Where a video is cut, and how much moves in it, measured on frames reduced to 64x36."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from opensora.media.reader import small_frames

HEIGHT, WIDTH = 36, 64
SMALLEST_CUT = 12.0
"""Mean difference of the frames on the two sides of a cut, in levels of 0 to 255, below which it is none."""
PROMINENCE = 3.0
"""How many times larger than what is usual around it the difference at a cut is."""
REACH = 8
"""Frames on each side that count as around."""


class Scene(NamedTuple):
    """Frames `start` up to, not including, `end`; `motion` is the mean difference of neighbours in levels, the middle one over time."""

    start: int
    end: int
    motion: float


def find_scenes(path: str | Path) -> list[Scene]:
    """The scenes of a video, in order; together they are all its frames. Raises ValueError for a file that cannot be read."""
    across, around = _differences(small_frames(path, HEIGHT, WIDTH))
    edges = [0, *find_cuts(across, around), len(across) + 1]
    return [Scene(start, end, round(_middle(across[start : end - 1]), 2)) for start, end in pairwise(edges)]


def find_cuts(across: np.ndarray, around: np.ndarray) -> list[int]:
    """The frames that begin a new scene. Both (T-1,): element t is the difference of frames t and t+1, and of t-1 and t+2.

    A cut differs more than its surroundings, so fast motion is none; and the frames around it differ about as much, so a flash is none.
    """
    cuts = []
    for place in np.flatnonzero((across >= SMALLEST_CUT) & (around >= across / 2)):
        near = np.r_[across[max(0, place - REACH) : place], across[place + 1 : place + 1 + REACH]]
        if across[place] >= PROMINENCE * max(_middle(near), 1.0):
            cuts.append(int(place) + 1)
    return cuts


def _differences(frames: Iterator[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What `find_cuts` takes, from a window of four frames; at the ends the window is shorter."""
    across: list[float] = []
    around: list[float] = []
    window: list[np.ndarray] = []
    for frame in _with_last_repeated(frames):
        window = [*window[-3:], frame.astype(np.int16)]
        if len(window) == 3:
            window = [window[0], *window]  # the first frame has none before it
        if len(window) == 4:
            across.append(_distance(window[1], window[2]))
            around.append(_distance(window[0], window[3]))
    return np.array(across), np.array(around)


def _with_last_repeated(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    last = None
    for last in frames:
        yield last
    if last is not None:
        yield last


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first - second).mean())


def _middle(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else 0.0
