"""The metrics that need a network: LPIPS of frames and the features of the Frechet video distance, on weights that the user has."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from opensora.media.pixels import to_pixels
from opensora.models import I3D, LPIPS
from opensora.models.i3d import LEAST_FRAMES, SIZE
from opensora.runtime import mindspore
from opensora.weights import open_file

ms = mindspore()


class FrameDistance:
    """LPIPS of frames; `batch_size` frames go through the network at once. Raises ValueError for a file that is not LPIPS's."""

    def __init__(self, weights: Sequence[str | Path], batch_size: int) -> None:
        """weights: one file, or VGG16's and that of the heads."""
        self.network = LPIPS.from_files(weights)
        self.batch_size = batch_size

    def __call__(self, frames: np.ndarray, target: np.ndarray) -> float:
        """The mean distance of frames uint8 (T, H, W, 3), at least 16x16."""
        pairs = zip(self._batches(frames), self._batches(target), strict=True)
        distances = [self.network(ms.Tensor(a), ms.Tensor(b)).asnumpy().ravel() for a, b in pairs]
        return float(np.concatenate(distances)[: len(frames)].mean(dtype=np.float64))

    def _batches(self, frames: np.ndarray) -> Iterator[np.ndarray]:
        """float32 (N, 3, H, W) in [-1, 1]; the last one is filled up with copies, since another N would be compiled anew."""
        size = min(self.batch_size, len(frames))
        for start in range(0, len(frames), size):
            batch = frames[start : start + size]
            batch = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), 0)])
            yield np.ascontiguousarray(to_pixels(batch[None])[0].swapaxes(0, 1))


class VideoFeatures:
    """I3D's class scores of a video, prepared as the published evaluation does. Raises ValueError for a file that is not I3D's."""

    def __init__(self, weights: str | Path) -> None:
        file = open_file(weights)
        self.network = I3D.from_weights(
            {name: file.read(name) for name in file.entries if not name.endswith("num_batches_tracked")}
        )

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """float32 (400,) of frames uint8 (T, H, W, 3). Raises ValueError for fewer than nine frames."""
        if len(frames) < LEAST_FRAMES:
            raise ValueError(f"{len(frames)} frames are too few for FVD: {LEAST_FRAMES} are needed")
        pixels = square(to_pixels(frames[None]))
        return np.asarray(self.network(ms.Tensor(pixels)).asnumpy()[0])


def square(pixels: np.ndarray) -> np.ndarray:
    """(1, 3, T, H, W) -> (1, 3, T, 224, 224): the shorter side resized, bilinear without antialiasing, then the middle cut out."""
    height, width = pixels.shape[-2:]
    scale = SIZE / min(height, width)
    rows = _bilinear(height, math.ceil(height * scale - 1e-6))
    columns = _bilinear(width, math.ceil(width * scale - 1e-6))
    top, left = (len(rows) - SIZE) // 2, (len(columns) - SIZE) // 2
    return np.ascontiguousarray(rows[top : top + SIZE] @ pixels @ columns[left : left + SIZE].T, np.float32)


def _bilinear(length: int, target: int) -> np.ndarray:
    """(target, length) float32: weights of the two nearest inputs, corners not aligned, the edge repeated."""
    centres = np.clip((np.arange(target) + 0.5) * length / target - 0.5, 0, length - 1)
    return np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(length))).astype(np.float32)
