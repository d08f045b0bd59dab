"""Clips and pictures of a cache of latents."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from opensora.data.caches.latents import LatentCache


@dataclass(frozen=True)
class LatentDataset:
    """The items of a cache. Pictures that were cut from a video follow it on the time axis."""

    cache: LatentCache
    sample_posterior: bool = True
    encoded: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.cache)

    def name(self, index: int) -> str:
        return self.cache.items[index].path

    def captions(self, index: int) -> tuple[Sequence[str], int]:
        item = self.cache.items[index]
        return item.captions, item.source

    def visual(self, index: int, rng: np.random.Generator) -> np.ndarray:
        return self.cache.latents(index, rng if self.sample_posterior else None)
