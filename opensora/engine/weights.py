"""Weights that do not stay in memory: those of one block at a time, or those that a graph has copied."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import numpy as np

from opensora.engine.tensor import Tensor


class OnDemand(Mapping[str, Tensor]):
    """Tensors of `arrays`, which may read files or convert from 16 bits at every access. Takes the place of a
    dict of weights.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], tensor: Callable[[np.ndarray], Tensor]) -> None:
        """tensor: makes a tensor of an engine, which may share the array's memory."""
        self.arrays = arrays
        self._tensor = tensor

    def __getitem__(self, name: str) -> Tensor:
        return self._tensor(self.arrays[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)


INTERVAL = 0.05
"""Seconds between two times that pages are dropped."""


@contextmanager
def dropping_pages(weights: Any) -> Iterator[None]:
    """Drop what is read of weights in files from memory, meanwhile and at the end.

    A graph that is compiled copies them in the order that its operators want: both would be in memory.
    """
    drop = getattr(weights, "drop_pages", None)
    if drop is None:
        yield
        return
    done = Event()

    def keep_dropping() -> None:
        while not done.wait(INTERVAL):
            drop()

    thread = Thread(target=keep_dropping, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        drop()
