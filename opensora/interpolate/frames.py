"""The frames of a video with others between them. Cuts stay cuts."""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Protocol

import numpy as np


class Method(Protocol):
    """A way to interpolate frames."""

    def __call__(self, scene: Iterator[np.ndarray], factor: int) -> Iterator[list[np.ndarray]]:
        """For each frame of a scene but the first, the factor - 1 frames between it and the one before.

        It may read ahead; when it ends, it has read the scene to its end. Frames are uint8 (H, W, 3).
        """
        ...


def interpolated(
    frames: Iterable[np.ndarray], factor: int, method: Method, cuts: Sequence[int] = ()
) -> Iterator[np.ndarray]:
    """`factor` frames for each frame: itself, then those on the way to the next one.

    cuts: the first frames of all scenes but the first, in ascending order. The last frame of a scene is
    repeated, so that the result plays as long as the video at `factor` times its rate.
    """
    numbered = groupby(enumerate(frames), key=lambda item: bisect_right(cuts, item[0]))
    for _, scene in numbered:
        yield from _within_scene((frame for _, frame in scene), factor, method)


def _within_scene(scene: Iterator[np.ndarray], factor: int, method: Method) -> Iterator[np.ndarray]:
    waiting: deque[np.ndarray] = deque()

    def read() -> Iterator[np.ndarray]:
        for frame in scene:
            waiting.append(frame)
            yield frame

    for between in method(read(), factor):
        yield waiting.popleft()
        yield from between
    (last,) = waiting
    for _ in range(factor):
        yield last
