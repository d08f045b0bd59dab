"""The metrics with a network, LPIPS and the Frechet video distance, on weights that the user has."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from opensora.media.pixels import to_pixels
from opensora.metrics.frechet import frechet_distance_of_samples
from opensora.metrics.metric import Metric, VideoPair
from opensora.models import I3D, LPIPS
from opensora.models.i3d import LEAST_FRAMES, SIZE
from opensora.runtime import mindspore
from opensora.weights import open_file

ms = mindspore()


class LPIPSMetric(Metric):
    """The mean LPIPS of the frames."""

    def __init__(self, weights: Sequence[str | Path], batch_size: int) -> None:
        """weights: one file, or VGG16's and the heads'. batch_size: frames in the network at once.

        Raises ValueError for files without the weights of LPIPS.
        """
        self._network = LPIPS.from_files(weights)
        self._batch_size = batch_size

    def score(self, pair: VideoPair) -> float:
        """The frames must be at least 16x16."""
        batches = zip(self._batches(pair.generated), self._batches(pair.real), strict=True)
        distances = [self._network(ms.Tensor(a), ms.Tensor(b)).asnumpy().ravel() for a, b in batches]
        return float(np.concatenate(distances)[: len(pair.real)].mean(dtype=np.float64))

    def _batches(self, frames: np.ndarray) -> Iterator[np.ndarray]:
        """float32 (N, 3, H, W) in [-1, 1].

        The last batch is filled up with copies: another N would be compiled anew.
        """
        size = min(self._batch_size, len(frames))
        for start in range(0, len(frames), size):
            batch = frames[start : start + size]
            batch = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), 0)])
            yield np.ascontiguousarray(to_pixels(batch[None])[0].swapaxes(0, 1))


class FrechetVideoDistance(Metric):
    """The Frechet distance of the I3D features of all real and all generated videos."""

    def __init__(self, weights: str | Path) -> None:
        """Raises ValueError for a file without the weights of I3D."""
        self._features_of = VideoFeatures(weights)
        self._real: list[np.ndarray] = []
        self._generated: list[np.ndarray] = []

    def score(self, pair: VideoPair) -> None:
        self._real.append(self._features_of(pair.real))
        self._generated.append(self._features_of(pair.generated))

    def total(self, scores: Sequence[float]) -> float | None:
        if len(self._real) < 2:
            return None
        return frechet_distance_of_samples(np.stack(self._real), np.stack(self._generated))


class VideoFeatures:
    """The class scores of I3D for a video that is prepared as in the reference's evaluation."""

    def __init__(self, weights: str | Path) -> None:
        """Raises ValueError for a file without the weights of I3D."""
        file = open_file(weights)
        names = [name for name in file.entries if not name.endswith("num_batches_tracked")]
        self._network = I3D.from_weights({name: file.read(name) for name in names})

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """uint8 (T, H, W, 3) -> float32 (400,). Raises ValueError for fewer than nine frames."""
        if len(frames) < LEAST_FRAMES:
            raise ValueError(f"{len(frames)} frames are too few for FVD: {LEAST_FRAMES} are needed")
        pixels = square(to_pixels(frames[None]))
        return np.asarray(self._network(ms.Tensor(pixels)).asnumpy()[0])


def square(pixels: np.ndarray) -> np.ndarray:
    """Resize the shorter side and crop the centre: (1, 3, T, H, W) -> (1, 3, T, 224, 224).

    Bilinear, without antialiasing.
    """
    height, width = pixels.shape[-2:]
    scale = SIZE / min(height, width)
    rows = _bilinear(height, math.ceil(height * scale - 1e-6))
    columns = _bilinear(width, math.ceil(width * scale - 1e-6))
    top, left = (len(rows) - SIZE) // 2, (len(columns) - SIZE) // 2
    return np.ascontiguousarray(rows[top : top + SIZE] @ pixels @ columns[left : left + SIZE].T, np.float32)


def _bilinear(length: int, target: int) -> np.ndarray:
    """Weights of the two nearest inputs, float32 (target, length).

    Corners are not aligned, edges are repeated.
    """
    centres = np.clip((np.arange(target) + 0.5) * length / target - 0.5, 0, length - 1)
    return np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(length))).astype(np.float32)
