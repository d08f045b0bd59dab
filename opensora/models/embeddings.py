"""Sinusoidal tables of positions, timesteps and rotations: float64 on the host, rounded to float32."""

import numpy as np

BASE = 10000.0


def sincos(dim: int, positions: np.ndarray) -> np.ndarray:
    """Sines, then cosines, of positions (N,) at dim/2 frequencies: float32 (N, dim).

    See arXiv:1706.03762, section 3.5.
    """
    angles = np.outer(positions.astype(np.float64), BASE ** (-np.arange(dim // 2) / (dim / 2)))
    return np.concatenate([np.sin(angles), np.cos(angles)], 1).astype(np.float32)


def sincos_2d(dim: int, grid: tuple[int, int], base_size: int, scale: float = 1.0) -> np.ndarray:
    """Position embedding of a grid (h, w) of patches, rows first: float32 (h*w, dim).

    The first half of the channels encodes the column, the second the row. Each axis spans `base_size` /
    `scale` positions for any number of patches, so other sizes are interpolated (PixArt-alpha,
    arXiv:2310.00426).
    """
    height, width = grid
    rows = np.repeat(_positions(height) / (height / base_size) / scale, width)
    columns = np.tile(_positions(width) / (width / base_size) / scale, height)
    return np.concatenate([sincos(dim // 2, columns), sincos(dim // 2, rows)], 1)


def sincos_1d(dim: int, length: int, scale: float = 1.0) -> np.ndarray:
    """Position embedding of `length` frames, `scale` frames per position: float32 (length, dim)."""
    return sincos(dim, _positions(length) / scale)


def sincos_frames(dim: int, frames: int, video_length: int, scale: float = 1.0) -> np.ndarray:
    """Position embedding of `frames` frames for a model trained with `video_length`: float32 (frames, dim).

    The frames are spread evenly over the positions of `video_length` frames, from the first to the last. A
    single frame is at position 0. For `frames` = `video_length` the result is exactly `sincos_1d`.
    """
    if frames == video_length:
        return sincos_1d(dim, frames, scale)
    return sincos(dim, np.linspace(0.0, video_length - 1, frames) / scale)


def timestep_embedding(timestep: np.ndarray, dim: int = 256, lowest: bool = False) -> np.ndarray:
    """Cosines, then sines, of timesteps (B,), fractional or not, at dim/2 frequencies: float32 (B, dim).

    The frequencies fall from 1 towards 1/10000; lowest: the last one is that, as v1.0.0's class embedding
    has it.

    Exponents, frequencies and angles are rounded to float32, as in the training of the released weights.
    Angles reach 1000, where this rounding matters.
    """
    half = dim // 2
    steps = half - 1 if lowest else half
    exponents = np.arange(half, dtype=np.float32) * np.float32(-np.log(BASE)) / np.float32(steps)
    frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)
    angles = (timestep.astype(np.float32)[:, None] * frequencies).astype(np.float64)
    return np.concatenate([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def rope_1d(dim: int, length: int, scale: float = 1) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of the rotary embedding of `length` frames (arXiv:2104.09864): float32 (length, dim)
    each.

    As in the reference, positions are divided by `scale` and rounded down, so neighbours may have the same
    one.
    """
    return _rotation(dim, np.arange(length) // scale)


def rope_2d(dim: int, grid: tuple[int, int], scale: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The same for a grid (h, w) of patches, rows first: (h*w, dim) each.

    The first half of the channels of a head encodes the row, the second the column.
    """
    height, width = grid
    rows = _rotation(dim // 2, np.repeat(np.arange(height) // scale, width))
    columns = _rotation(dim // 2, np.tile(np.arange(width) // scale, height))
    return np.concatenate([rows[0], columns[0]], 1), np.concatenate([rows[1], columns[1]], 1)


def _rotation(dim: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Channels i and i + dim/2 form a pair that is rotated."""
    table = sincos(dim, positions)
    sines, cosines = table[:, : dim // 2], table[:, dim // 2 :]
    return np.tile(cosines, (1, 2)), np.tile(sines, (1, 2))


def _positions(count: int) -> np.ndarray:
    # The released weights were trained with positions in float32.
    return np.arange(count, dtype=np.float32)
