"""Rendered clips of the demo data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from opensora.demo_data.captions import Wording, captions
from opensora.demo_data.render import DemoClips
from opensora.media.pixels import to_pixels


@dataclass(frozen=True)
class DemoDataset:
    """The first `num_clips` clips of an endless sequence.

    Clip n depends on the sequence's own seed and n only. wording: of its captions.
    """

    clips: DemoClips
    num_clips: int = 4096
    wording: Wording = "sentence"
    encoded: ClassVar[bool] = False

    def __len__(self) -> int:
        return self.num_clips

    def name(self, index: int) -> str:
        return f"demo clip {index}"

    def captions(self, index: int) -> tuple[Sequence[str], int]:
        return captions(self.wording, self.clips.pair(index), self.clips.scale(index)), 0

    def visual(self, index: int, rng: np.random.Generator) -> np.ndarray:
        return to_pixels(self.clip(index)[None])[0]

    def clip(self, number: int) -> np.ndarray:
        """uint8 (T, H, W, 3), for training an autoencoder; there is no last number."""
        return self.clips[number].video

    @property
    def epoch(self) -> None:
        """An autoencoder sees no clip twice."""
        return None
