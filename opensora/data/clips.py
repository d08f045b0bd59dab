"""Clips cut out of videos: which frames are read, and at what size.

Training draws clips: `draw_frames` reads frames from a random start, `read_clip` makes the transformer's
training clips of them (`dataset/videos.py` makes the autoencoder's). `reconstruct` and `evaluate` read the
same frames every time: `ClipShape`.
"""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from opensora.checks import at_least
from opensora.data.options import ClipOptions
from opensora.data.transforms import (
    center_crop,
    center_crop_resize,
    frame_indices,
    long_side_resize,
    random_flip,
    short_side_resize,
    to_float,
    to_model,
)
from opensora.media.reader import frames_between, iter_frames, read_video

FRAMES_AT_ONCE = 16  # resized together, so that only part of a clip is held as floats


class Segment(NamedTuple):
    """Frames `start` up to, not including, `end` of a video, at its own rate; None is the end of the file."""

    path: Path
    start: int = 0
    end: int | None = None


def draw_frames(
    segment: Segment,
    num_frames: int,
    sample_rate: int,
    rng: np.random.Generator,
    fps: float | None = None,
) -> np.ndarray:
    """Read every `sample_rate`-th frame from a start drawn inside the segment -> uint8 (num_frames, h, w, 3).

    fps: resample the video to this rate first; default: its own rate.
    A segment that is too short for this rate is read at the largest rate that fits. Raises ValueError that
    names a file that cannot be read or a segment of fewer than `num_frames` frames.
    """
    inside = frames_between(segment.path, segment.start, segment.end, fps)
    try:
        indices = inside.start + frame_indices(len(inside), num_frames, sample_rate, rng)
    except ValueError as error:
        raise ValueError(f"{segment.path}: {error}") from error
    step = int(indices[1] - indices[0]) if num_frames > 1 else 1
    return read_video(segment.path, num_frames, step, int(indices[0]), fps)


def read_clip(segment: Segment, options: ClipOptions, rng: np.random.Generator) -> np.ndarray:
    """Draw a clip as the transformer's training reads it -> float32 (3, T, H, W) in [-1, 1].

    Raises ValueError as `draw_frames` does.
    """
    frames = draw_frames(segment, options.num_frames, options.sample_rate, rng, options.fps)  # (T, h, w, 3)
    return cut(frames, options, rng)


def cut(frames: np.ndarray, options: ClipOptions, rng: np.random.Generator) -> np.ndarray:
    """Frames uint8 (T, h, w, 3) at the size of the options -> float32 (3, T, H, W) in [-1, 1]."""
    resize = long_side_resize if options.multi_scale else center_crop_resize
    # One frame at a time: 65 frames of 1080p in float32 take 1.6 GB.
    resized = [resize(to_float(frame[None]), options.max_image_size) for frame in frames]
    video = np.concatenate(resized)  # (T, 3, H, W)
    return to_model(random_flip(video, rng) if options.enable_flip else video)


def evenly_spaced_frames(video: np.ndarray, count: int) -> list[np.ndarray]:
    """`count` frames (C, 1, H, W) of a clip (C, T, H, W), from the first to the last."""
    places = np.linspace(0, video.shape[1] - 1, count).astype(int)
    return [video[:, place : place + 1] for place in places]


@dataclass(frozen=True, kw_only=True)
class ClipShape:
    """The frames that are read of a file, and their size. Raises ValueError that names the option."""

    num_frames: int
    """Maximum number of frames."""
    sample_rate: int = 1
    """Take every n-th frame."""
    resolution: int | None = None
    """Resize the shorter side to this many pixels."""
    crop_size: int | None = None
    """Then crop a centred square of this side."""
    multiple: int = 1
    """Height and width are cropped to multiples of it."""

    def __post_init__(self) -> None:
        at_least(self, 1, "num_frames", "sample_rate", "resolution", "crop_size")
        if self.crop_size is None:
            return
        if self.crop_size % self.multiple:
            near = max(round(self.crop_size / self.multiple), 1) * self.multiple
            raise ValueError(
                f"crop_size {self.crop_size} is not a multiple of {self.multiple}, the autoencoder's stride: "
                f"use {near}"
            )
        if self.resolution is not None and self.crop_size > self.resolution:
            raise ValueError(
                f"crop_size {self.crop_size} is larger than resolution {self.resolution}: "
                f"use {self.resolution} or less"
            )

    def read(self, path: Path, start: int = 0) -> np.ndarray:
        """Read the clip from frame `start` -> uint8 (T, H, W, 3) with T up to num_frames.

        Raises ValueError that names a file that cannot be read, ends before `start` or has frames that are
        too small.
        """
        frames = islice(iter_frames(path, self.sample_rate, start), self.num_frames)
        parts = []
        while chunk := list(islice(frames, FRAMES_AT_ONCE)):
            parts.append(self._fit(path, np.stack(chunk)))
        if not parts:
            raise ValueError(f"{path} has no frame {start}: it is damaged or empty")
        return np.concatenate(parts)

    def _fit(self, path: Path, frames: np.ndarray) -> np.ndarray:
        if self.resolution is not None and min(frames.shape[1:3]) != self.resolution:
            resized = short_side_resize(to_float(frames), self.resolution)  # (T, C, H, W)
            frames = np.rint(np.clip(resized, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
        height, width = frames.shape[1:3]
        size = (height // self.multiple * self.multiple, width // self.multiple * self.multiple)
        if self.crop_size is not None:
            size = (self.crop_size, self.crop_size)
        if not all(size) or size[0] > height or size[1] > width:
            least = self.crop_size or self.multiple
            raise ValueError(
                f"{path} has frames of {height}x{width}, less than {least}x{least}: "
                f"enlarge them with --resolution {least}"
            )
        return center_crop(frames.transpose(0, 3, 1, 2), size).transpose(0, 2, 3, 1)
