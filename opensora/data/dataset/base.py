"""The interface of a data set."""

from collections.abc import Sequence
from typing import ClassVar, Protocol

import numpy as np


class Dataset(Protocol):
    """Videos or pictures with captions, as pixels or as cached latents."""

    encoded: ClassVar[bool]
    """True if `visual` returns latents instead of pixels."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """The name of an item in reports."""

    def captions(self, index: int) -> tuple[Sequence[str], int]:
        """The captions of an item, and the number of the data set in its list."""

    def visual(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """Pixels (3, T, H, W) in [-1, 1] or scaled latents (C, t, h, w).

        Raises ValueError if they cannot be read.
        """
