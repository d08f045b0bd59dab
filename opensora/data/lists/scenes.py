"""Scenes of a video and their motion, measured on frames reduced to 64x36."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from opensora.media.reader import iter_frames

HEIGHT, WIDTH = 36, 64
SMALLEST_CUT = 12.0
"""Minimum difference at a cut: mean over the pixels of the two frames, in levels of 0 to 255."""
PROMINENCE = 3.0
"""Minimum ratio of the difference at a cut to the median difference around it."""
REACH = 8
"""Frames on each side that count as around."""


class Scene(NamedTuple):
    """Frames `start` up to, not including, `end`.

    `motion`: median over time of the mean difference of neighbours, in levels.
    """

    start: int
    end: int
    motion: float


def find_scenes(path: str | Path) -> list[Scene]:
    """Split a video into scenes, which together are all its frames.

    Raises ValueError for a file that cannot be read.
    """
    across, around = _differences(iter_frames(path, size=(HEIGHT, WIDTH)))
    edges = [0, *find_cuts(across, around), len(across) + 1]
    return [Scene(start, end, round(_median(across[start : end - 1]), 2)) for start, end in pairwise(edges)]


def find_cuts(across: np.ndarray, around: np.ndarray) -> list[int]:
    """The first frame of every scene but the first.

    across, around: (T-1,), at t the difference of frames t and t+1, and of frames t-1 and t+2. A cut differs
    more than its surroundings, so fast motion is no cut; the frames around it differ about as much, so a
    flash is no cut.
    """
    cuts = []
    for place in np.flatnonzero((across >= SMALLEST_CUT) & (around >= across / 2)):
        near = np.r_[across[max(0, place - REACH) : place], across[place + 1 : place + 1 + REACH]]
        if across[place] >= PROMINENCE * max(_median(near), 1.0):
            cuts.append(int(place) + 1)
    return cuts


def _differences(frames: Iterator[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The arguments of `find_cuts`, from a sliding window of four frames.

    The first and last frame are repeated.
    """
    across: list[float] = []
    around: list[float] = []
    window: list[np.ndarray] = []
    for frame in _with_last_repeated(frames):
        window = [*window[-3:], frame.astype(np.int16)]
        if len(window) == 3:
            window = [window[0], *window]
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


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else 0.0
