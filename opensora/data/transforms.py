"""Resize and crop videos, and choose their frames.

Videos are float32 numpy (T, C, H, W) in [0, 1] unless a function says otherwise.
"""

from functools import lru_cache

import numpy as np

CropSize = int | tuple[int, int]


def to_float(frames: np.ndarray) -> np.ndarray:
    """uint8 frames (T, H, W, C) -> float32 (T, C, H, W) in [0, 1]."""
    return np.ascontiguousarray(frames.transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def to_model(video: np.ndarray) -> np.ndarray:
    """(T, C, H, W) in [0, 1] -> (C, T, H, W) in [-1, 1], the autoencoder's input."""
    return np.ascontiguousarray(2 * video.swapaxes(0, 1) - 1, np.float32)


def resize(video: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (T, C, H, W) -> (T, C, *size): bilinear, antialiased, corners aligned.

    Gives the reference's numbers. Its library combines the last two options in its own way: the step is that
    of aligned corners, (in - 1) / (out - 1), but output i is centred at step * (i + 1/2), as without
    alignment.
    """
    height, width = video.shape[-2:]
    columns = video @ _resize_matrix(width, size[1]).T  # (T, C, H, W')
    return _resize_matrix(height, size[0]) @ columns  # (T, C, H', W')


@lru_cache(maxsize=64)
def _resize_matrix(length: int, target: int) -> np.ndarray:
    """(target, length) float32: row i holds the triangle filter of output i, with the sum 1."""
    step = np.float32(length - 1) / np.float32(target - 1) if target > 1 else np.float32(0)
    reach = max(float(step), 1.0)
    # Single precision, because the reference rounds the centres too: at 1000 pixels that moves weights by
    # 1e-4.
    centres = (step * (np.arange(target, dtype=np.float32) + np.float32(0.5))).astype(np.float64)
    first = np.maximum((centres - reach + 0.5).astype(int), 0)
    last = np.minimum((centres + reach + 0.5).astype(int), length)
    position = np.arange(length)
    weights = np.maximum(0, 1 - np.abs(position - centres[:, None] + 0.5) / reach)
    weights[(position < first[:, None]) | (position >= last[:, None])] = 0
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def center_crop_resize(video: np.ndarray, size: CropSize) -> np.ndarray:
    """Crop the largest centred part with the proportions of `size`, an int for a square, and resize it."""
    target = _pair(size)
    height, width = video.shape[-2:]
    part = (min(height, width * target[0] // target[1]), min(width, height * target[1] // target[0]))
    return resize(center_crop(video, part), target)


def long_side_resize(video: np.ndarray, size: int, skip_low_resolution: bool = True) -> np.ndarray:
    """Resize the longer side to `size`; the other side keeps the proportions, rounded down.

    skip_low_resolution: leave videos as they are that are no larger than `size`.
    """
    height, width = video.shape[-2:]
    if skip_low_resolution and max(height, width) <= size:
        return video
    if height > width:
        return resize(video, (size, int(width * size / height)))
    return resize(video, (int(height * size / width), size))


def short_side_resize(video: np.ndarray, size: int) -> np.ndarray:
    """Resize the shorter side to `size`; the other side keeps the proportions, rounded down."""
    height, width = video.shape[-2:]
    if height > width:
        return resize(video, (height * size // width, size))
    return resize(video, (size, width * size // height))


def stride_crop(video: np.ndarray, stride: int) -> np.ndarray:
    """Crop the top left part to the largest multiples of `stride`."""
    height, width = video.shape[-2:]
    return video[..., : height // stride * stride, : width // stride * stride]


def center_crop(video: np.ndarray, size: CropSize) -> np.ndarray:
    """Crop a centred part of `size`. Raises ValueError if the video is smaller."""
    room = _room(video, size)
    return _crop(video, round(room[0] / 2), round(room[1] / 2), _pair(size))


def random_crop(video: np.ndarray, size: CropSize, rng: np.random.Generator) -> np.ndarray:
    """Crop a part of `size` at a place drawn from `rng`. Raises ValueError if the video is smaller."""
    room = _room(video, size)
    return _crop(video, int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1)), _pair(size))


def random_flip(video: np.ndarray, rng: np.random.Generator, probability: float = 0.5) -> np.ndarray:
    """Mirror the video left to right with the given probability."""
    return video[..., ::-1] if rng.random() < probability else video


def frame_indices(
    total: int, num_frames: int, sample_rate: int = 1, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Choose `num_frames` evenly spaced frames of a video's `total` frames -> int64 (num_frames,).

    Takes every `sample_rate`-th frame, or in a video too short for that every n-th with the largest n that
    fits. The start is drawn from `rng`, or is 0. Raises ValueError if the video has fewer than `num_frames`
    frames.
    """
    if total < num_frames:
        raise ValueError(
            f"{num_frames} frames are needed, the video has {total}: lower num_frames, or leave the video out"
        )
    rate = min(sample_rate, (total - 1) // (num_frames - 1)) if num_frames > 1 else 1
    span = (num_frames - 1) * rate + 1
    start = 0 if rng is None else int(rng.integers(total - span + 1))
    return start + rate * np.arange(num_frames)


def _pair(size: CropSize) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _room(video: np.ndarray, size: CropSize) -> tuple[int, int]:
    height, width = video.shape[-2:]
    target = _pair(size)
    if height < target[0] or width < target[1]:
        raise ValueError(
            f"a crop of {target[0]}x{target[1]} does not fit into a video of {height}x{width}: "
            "resize it first"
        )
    return height - target[0], width - target[1]


def _crop(video: np.ndarray, top: int, left: int, size: tuple[int, int]) -> np.ndarray:
    return video[..., top : top + size[0], left : left + size[1]]
