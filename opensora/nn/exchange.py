"""What a model asks for where several devices may share a video. `parallel/sequence.py` has the answers of several."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from opensora.engine.block import Block

T = TypeVar("T")


class Alone:
    """All frames are here."""

    def total(self, frames: int) -> int:
        """Frames of the whole video, of which this device holds `frames`."""
        return frames

    def own(self, table: Any) -> Any:
        """This device's rows of a table with a row for each frame of the whole video."""
        return table

    def over_time(self, block: Block) -> Block:
        """A block that joins frames, for tokens (B, frames of this device and its images, S, D); its other inputs know the whole video."""
        return block


class Turns:
    """Who computes which of many pieces: one device all of them, one after the other."""

    def compute(
        self, function: Callable[[T], tuple[np.ndarray, ...]], items: Iterable[T]
    ) -> Iterator[tuple[T, tuple[np.ndarray, ...]]]:
        """Every item with what the function makes of it, in their order. The results of all items have the same shapes."""
        for item in items:
            yield item, function(item)
