"""Hooks for splitting a video across devices.

Here is the form for one device; `parallel/sequence.py` has the others.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from opensora.engine.block import Differentiable
from opensora.engine.tensor import Tensor

T = TypeVar("T")


class FrameExchange:
    """How temporal blocks reach the frames on other devices; this device holds all frames."""

    def total_frames(self, frames: int) -> int:
        """The number of frames of the whole video, given the number on this device."""
        return frames

    def local_rows(self, table: Tensor) -> Tensor:
        """The rows for this device's frames, of a table (T, ...) for the whole video."""
        return table

    def wrap_temporal(self, block: Differentiable) -> Differentiable:
        """The temporal block `block(weights, x, *inputs)` for this device's frames.

        x is (B, frames and images of this device, S, D); the other inputs are those for the whole video.
        """
        return block


class WorkSharing:
    """How devices share independent pieces of work; this one computes all of them in order."""

    def map(
        self, function: Callable[[T], tuple[np.ndarray, ...]], items: Iterable[T]
    ) -> Iterator[tuple[T, tuple[np.ndarray, ...]]]:
        """Yield (item, function(item)) in the order of the items.

        The results of all items have the same shapes.
        """
        for item in items:
            yield item, function(item)
