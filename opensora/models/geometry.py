"""Sizes of videos and of their latents, and the strides between them. Does not import MindSpore."""

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

Size = tuple[int, int, int]
"""Frames, height, width."""
FLOAT = 4
"""Bytes of a float32 number."""


class Strides(NamedTuple):
    """Factors by which an autoencoder shrinks a video. The first frame is a latent frame by itself."""

    time: int
    space: int

    def latent_size(self, pixels: Sequence[int], partial: bool = True) -> Size:
        """The size (T, h, w) of the latents of a video (F, H, W).

        partial: count latents that the video fills only in part, as after padding it. False drops them, as
        `encode` does.
        """
        frames, height, width = pixels
        if partial:
            return 1 + ceil((frames - 1) / self.time), ceil(height / self.space), ceil(width / self.space)
        return 1 + (frames - 1) // self.time, height // self.space, width // self.space

    def pixel_size(self, latents: Sequence[int]) -> Size:
        """The size (F, H, W) of the video that latents (T, h, w) are decoded to."""
        frames, height, width = latents
        return 1 + (frames - 1) * self.time, height * self.space, width * self.space
