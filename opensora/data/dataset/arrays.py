"""Clips in memory, from a program instead of files."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np

from opensora.data.clips import cut
from opensora.data.options import ClipOptions
from opensora.data.transforms import frame_indices

Captioned = tuple[np.ndarray, str]
"""Frames uint8 (T, H, W, 3), and their caption."""


class ArrayDataset:
    """Frames with captions, cut like the videos of a data list."""

    encoded: ClassVar[bool] = False

    def __init__(self, items: Iterable[Captioned], clip: ClipOptions) -> None:
        """Take all items into memory. Raises TypeError or ValueError for what is no clip with a caption."""
        self.clip = clip
        self.items: list[Captioned] = []
        for number, item in enumerate(items):
            if not isinstance(item, tuple) or len(item) != 2 or not isinstance(item[1], str):
                raise TypeError(f"item {number} of the data must be a pair of frames and a caption")
            self.items.append((checked_frames(item[0], number, clip.num_frames), item[1]))
        if not self.items:
            raise ValueError("the data has no item: give at least one pair of frames and a caption")

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        return f"item {index} of the data"

    def captions(self, index: int) -> tuple[Sequence[str], int]:
        return [self.items[index][1]], 0

    def visual(self, index: int, rng: np.random.Generator) -> np.ndarray:
        frames, clip = self.items[index][0], self.clip
        indices = frame_indices(len(frames), clip.num_frames, clip.sample_rate, rng)
        return cut(frames[indices], clip, rng)


class ArrayClips:
    """An endless sequence of square clips of frames without captions, for training an autoencoder.

    Every item gives one clip an epoch, in an order of that epoch.
    """

    def __init__(
        self, items: Sequence[np.ndarray], seed: int, num_frames: int, size: int, sample_rate: int = 1
    ) -> None:
        """items: uint8 (T, H, W, 3) each. size: height and width of clips in pixels."""
        self.items = [checked_frames(frames, number, num_frames) for number, frames in enumerate(items)]
        if not self.items:
            raise ValueError("the data has no item: give at least one clip")
        self.seed, self.num_frames, self.sample_rate = seed, num_frames, sample_rate
        self._clip = ClipOptions(num_frames=num_frames, max_image_size=size)

    def clip(self, number: int) -> np.ndarray:
        """uint8 (T, H, W, 3)."""
        frames, rng = self.items[self._index(number)], np.random.default_rng([self.seed, number])
        indices = frame_indices(len(frames), self.num_frames, self.sample_rate, rng)
        pixels = cut(frames[indices], self._clip, rng)  # (3, T, H, W) in [-1, 1]
        return np.rint((pixels.transpose(1, 2, 3, 0) + 1) * 127.5).clip(0, 255).astype(np.uint8)

    def name(self, number: int) -> str:
        return f"item {self._index(number)} of the data"

    @property
    def epoch(self) -> int:
        return len(self.items)

    def _index(self, number: int) -> int:
        epoch, place = divmod(number, len(self.items))
        return int(np.random.default_rng([self.seed, epoch]).permutation(len(self.items))[place])


def checked_frames(frames: np.ndarray, number: int, least: int) -> np.ndarray:
    """The frames of item `number`. Raises TypeError or ValueError for what is no clip of `least` frames."""
    if not isinstance(frames, np.ndarray):
        raise TypeError(f"item {number} of the data must be an array of frames, not {type(frames).__name__}")
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        raise ValueError(
            f"item {number} of the data must be uint8 (T, H, W, 3), not {frames.dtype} {frames.shape}"
        )
    if len(frames) < least:
        raise ValueError(f"item {number} of the data has {len(frames)} frames, {least} are needed")
    return frames
