"""Videos (T, B, C, H, W) float32 on the host, read a few frames at a time.

They are stored, computed on demand, or interpolated.

A workspace stores them in memory up to a budget and in scratch files beyond it. Every read lists frame
numbers, so a causal convolution repeats the first frame, and a short last chunk the last one, by listing it
again.
"""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np

from opensora.models.geometry import FLOAT

CHUNK_BYTES = 2**24
# Pixels that are squared together: as many as fit in a processor's cache.
CACHED = 2**16

Shape = tuple[int, ...]
"""(T, B, C, H, W)."""


class Frames(Protocol):
    """A video that can be read."""

    shape: Shape

    def read(self, frames: np.ndarray) -> np.ndarray:
        """These frames, (len(frames), B, C, H, W), read-only."""
        ...

    def release(self) -> None:
        """Free the video, which is not needed any more."""
        ...


class Statistics:
    """Mean and centred sum of squares of every frame and channel, float64 (T, B, C).

    They add up to those of groups.
    """

    def __init__(self, shape: Shape) -> None:
        self.pixels = shape[3] * shape[4]
        self.mean = np.zeros(shape[:3])
        self.squares = np.zeros(shape[:3])

    def add(self, start: int, frames: np.ndarray) -> None:
        """Add frames (n, B, C, H, W), the first of which is number `start`."""
        rows = np.ascontiguousarray(frames).reshape(-1, self.pixels)
        average = np.full(self.pixels, 1 / self.pixels, np.float32)
        mean = (rows @ average).astype(np.float64)
        squares = np.empty(len(rows))
        step = max(1, CACHED // self.pixels)
        for i in range(0, len(rows), step):
            centred: np.ndarray = rows[i : i + step] - mean[i : i + step, None].astype(np.float32)
            missed = centred @ average  # by rounding of the mean
            mean[i : i + step] += missed
            squares[i : i + step] = np.square(centred, out=centred).sum(1) - self.pixels * np.square(missed)
        stop = start + len(frames)
        self.mean[start:stop] = mean.reshape(frames.shape[:3])
        self.squares[start:stop] = squares.reshape(frames.shape[:3])

    def groups(self, groups: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of each video's groups of channels over all frames, (B, groups) each.

        These are the parallel sums of Chan et al. 1983.
        """
        frames, batch, channels = self.mean.shape
        split = (frames, batch, groups, channels // groups)
        means = self.mean.reshape(split)
        mean = means.mean((0, 3))
        between = np.square(means - mean[None, :, :, None]).mean((0, 3))
        return mean, between + self.squares.reshape(split).mean((0, 3)) / self.pixels


class Given:
    """A video that is in memory already."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.shape: Shape = array.shape

    def read(self, frames: np.ndarray) -> np.ndarray:
        contiguous = len(frames) == frames[-1] - frames[0] + 1
        return np.ascontiguousarray(
            self.array[frames[0] : frames[-1] + 1] if contiguous else self.array[frames]
        )

    def release(self) -> None:
        """Keep it: others may use it."""


class Stored(ABC):
    """A video that is written in chunks, with the statistics of its frames. Made by a workspace."""

    def __init__(self, shape: Shape, workspace: "Workspace") -> None:
        self.shape = shape
        self.statistics = Statistics(shape)
        self._workspace = workspace

    def write(self, start: int, frames: np.ndarray) -> None:
        """Write frames (n, B, C, H, W) from number `start` on; frames beyond the last are dropped."""
        frames = frames[: self.shape[0] - start]
        self.statistics.add(start, frames)
        self._write(start, frames)

    def release(self) -> None:
        self._workspace.forget(self)
        self._close()

    @abstractmethod
    def read(self, frames: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def _write(self, start: int, frames: np.ndarray) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...


class InMemory(Stored):
    def __init__(self, shape: Shape, workspace: "Workspace", array: np.ndarray | None = None) -> None:
        super().__init__(shape, workspace)
        self._given = Given(np.empty(shape, np.float32) if array is None else array)

    def read(self, frames: np.ndarray) -> np.ndarray:
        return self._given.read(frames)

    def _write(self, start: int, frames: np.ndarray) -> None:
        self._given.array[start : start + len(frames)] = frames

    def _close(self) -> None:
        del self._given


class InFile(Stored):
    """Reads and writes instead of a memory map, whose pages would count as the process's memory."""

    def __init__(self, shape: Shape, workspace: "Workspace", path: Path) -> None:
        super().__init__(shape, workspace)
        self._path = path
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115  closed with the video
        self._frame_size = prod(shape[1:]) * FLOAT

    def read(self, frames: np.ndarray) -> np.ndarray:
        result = np.empty((len(frames), *self.shape[1:]), np.float32)
        for target, frame in zip(result, frames, strict=True):
            self._file.seek(int(frame) * self._frame_size)
            view = target.reshape(-1).view(np.uint8).data
            while view:
                count = self._file.readinto(view)
                if not count:
                    raise OSError(f"another program cut the scratch file {self._path} short")
                view = view[count:]
        return result

    def _write(self, start: int, frames: np.ndarray) -> None:
        self._file.seek(start * self._frame_size)
        view = np.ascontiguousarray(frames).reshape(-1).view(np.uint8).data
        while view:
            view = view[self._file.write(view) :]

    def _close(self) -> None:
        self._file.close()
        self._path.unlink()


class Mapped:
    """A video computed from another when it is read, in chunks of `chunk` frames; the last chunk is kept.

    function: from frames of the source to `chunk` frames of this video. It gets `stride` source frames for
    each frame of the chunk but the last, one for the last, and `before` frames in front of them. keep: how
    many frames in front of a chunk its reader will read again.
    """

    def __init__(
        self,
        source: Frames,
        shape: Shape,
        chunk: int,
        function: Callable[[np.ndarray], np.ndarray],
        before: int = 0,
        stride: int = 1,
        keep: int = 0,
    ) -> None:
        self.source, self.shape, self.chunk = source, shape, chunk
        self._function, self._before, self._stride, self._keep = function, before, stride, keep
        self._kept: dict[int, np.ndarray] = {}

    def read(self, frames: np.ndarray) -> np.ndarray:
        numbers = np.unique(frames // self.chunk)
        parts = [self._chunk(int(number)) for number in numbers]
        if len(parts) == 1 and np.array_equal(frames % self.chunk, np.arange(self.chunk)):
            return parts[0]
        together = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return together[np.searchsorted(numbers, frames // self.chunk) * self.chunk + frames % self.chunk]

    def _chunk(self, number: int) -> np.ndarray:
        if number not in self._kept:
            start = number * self.chunk
            self._kept = {
                other: value
                for other, value in self._kept.items()
                if (other + 1) * self.chunk > start - self._keep
            }
            stop = start + self.chunk
            wanted = np.arange(self._stride * start - self._before, self._stride * (stop - 1) + 1)
            # The first and the last frame stand for those beyond them.
            source = self.source.read(np.clip(wanted, 0, self.source.shape[0] - 1))
            self._kept[number] = self._function(source)
        return self._kept[number]

    def release(self) -> None:
        self._kept = {}
        self.source.release()


class Interpolated:
    """A video with 2T - 1 frames for T of the source.

    The first frame stays; linear interpolation with half-pixel centres makes two of each other frame.
    """

    def __init__(self, source: Frames) -> None:
        self.source = source
        self.shape: Shape = (2 * source.shape[0] - 1, *source.shape[1:])

    def read(self, frames: np.ndarray) -> np.ndarray:
        nearest = (frames + 1) // 2
        other = np.where(
            frames % 2 == 1, np.maximum(nearest - 1, 1), np.minimum(nearest + 1, self.source.shape[0] - 1)
        )
        other[frames == 0] = 0
        first = min(nearest.min(), other.min())
        near = self.source.read(np.arange(first, max(nearest.max(), other.max()) + 1))
        result = np.float32(0.75) * near[nearest - first]
        result += np.float32(0.25) * near[other - first]
        return result

    def release(self) -> None:
        self.source.release()


class Workspace:
    """Stores videos in memory up to `budget` bytes, and further ones in scratch files that it removes.

    with Workspace(budget) as workspace: ...
    """

    def __init__(self, budget: int | None = None, folder: str | Path | None = None) -> None:
        """budget: None for no limit. folder: parent of the scratch folder, by default the system's own."""
        self.budget = budget
        self.peak = self.spilled = 0
        self._parent = folder
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._sizes: dict[Stored, int] = {}

    def __enter__(self) -> "Workspace":
        return self

    def __exit__(self, *error: object) -> None:
        for video in list(self._sizes):
            video.release()
        if self._scratch is not None:
            self._scratch.cleanup()

    @property
    def used(self) -> int:
        """Bytes of the videos in memory."""
        return sum(self._sizes.values())

    def store(self, shape: Shape) -> Stored:
        """An empty video."""
        size = prod(shape) * FLOAT
        if self.budget is not None and self.used + size > self.budget:
            return self._spill(shape)
        video = InMemory(shape, self)
        self._sizes[video] = size
        self.peak = max(self.peak, self.used)
        return video

    def place(self, array: np.ndarray) -> Stored:
        """A video that is written to this array (T, B, C, H, W).

        The array outlives it and does not count for the budget.
        """
        video = InMemory(array.shape, self, array)
        self._sizes[video] = 0
        return video

    def forget(self, video: Stored) -> None:
        """The video is about to close."""
        del self._sizes[video]

    def _spill(self, shape: Shape) -> Stored:
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="opensora-vae-", dir=self._parent)
        self.spilled += 1
        video = InFile(shape, self, Path(self._scratch.name) / f"{self.spilled}.frames")
        self._sizes[video] = 0
        return video
