"""Videos and pictures of data lists."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from opensora.data.clips import read_clip
from opensora.data.lists.data_list import Entries
from opensora.data.options import ClipOptions


@dataclass(frozen=True)
class FileDataset:
    """The records of a data list. A clip is read and cut when it is drawn."""

    entries: Entries
    clip: ClipOptions
    encoded: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, index: int) -> str:
        return str(self.entries[index].path)

    def captions(self, index: int) -> tuple[Sequence[str], int]:
        entry = self.entries[index]
        return entry.captions, entry.source

    def visual(self, index: int, rng: np.random.Generator) -> np.ndarray:
        return read_clip(self.entries[index].segment, self.clip, rng)
