"""Clips and pictures of a cache of latents."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from opensora.data.caches.latents import LatentCache
from opensora.data.lists.data_list import Entries


@dataclass(frozen=True)
class LatentDataset:
    """The items of a cache. Pictures that were cut from a video follow it on the time axis.

    entries: the list that the cache was made of, whose captions may have changed since; None takes those that
    the cache stores.
    """

    cache: LatentCache
    sample_posterior: bool = True
    entries: Entries | None = None
    encoded: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.cache)

    def name(self, index: int) -> str:
        return self.cache.items[index].path

    def captions(self, index: int) -> tuple[Sequence[str], int]:
        if self.entries is not None:
            entry = self.entries[self.cache.place(index)]
            return entry.captions, entry.source
        item = self.cache.items[index]
        return item.captions, item.source

    def visual(self, index: int, rng: np.random.Generator) -> np.ndarray:
        return self.cache.latents(index, rng if self.sample_posterior else None)
