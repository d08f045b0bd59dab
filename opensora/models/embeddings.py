"""Sinusoidal tables: positions, timesteps, rotations, computed on the host; sines and cosines in float64, rounded to float32."""

import numpy as np

BASE = 10000.0


def sincos(dim: int, positions: np.ndarray) -> np.ndarray:
    """Sines, then cosines, of the positions (N,) at dim/2 frequencies (section 3.5 of arXiv:1706.03762): float32 (N, dim)."""
    angles = np.outer(positions.astype(np.float64), BASE ** (-np.arange(dim // 2) / (dim / 2)))
    return np.concatenate([np.sin(angles), np.cos(angles)], 1).astype(np.float32)


def sincos_2d(dim: int, grid: tuple[int, int], base_size: int, scale: float = 1.0) -> np.ndarray:
    """Position embedding of a grid (h, w) of patches, rows first: float32 (h*w, dim).

    The first half of the channels is for the column, the second for the row. Each axis spans `base_size` / `scale` positions
    whatever its number of patches, as in PixArt-alpha (arXiv:2310.00426): other sizes interpolate.
    """
    height, width = grid
    rows = np.repeat(_positions(height) / (height / base_size) / scale, width)
    columns = np.tile(_positions(width) / (width / base_size) / scale, height)
    return np.concatenate([sincos(dim // 2, columns), sincos(dim // 2, rows)], 1)


def sincos_1d(dim: int, length: int, scale: float = 1.0) -> np.ndarray:
    """Position embedding of the frames 0 to `length` - 1, `scale` of them to one position: float32 (length, dim)."""
    return sincos(dim, _positions(length) / scale)


def _positions(count: int) -> np.ndarray:
    # The released weights were trained with positions in float32.
    return np.arange(count, dtype=np.float32)


def sincos_frames(dim: int, frames: int, video_length: int, scale: float = 1.0) -> np.ndarray:
    """Position embedding of `frames` frames by a model made for `video_length`: float32 (frames, dim).

    Another count is spread evenly over the same span, first on first and last on last, at fractional positions; at
    `frames` = `video_length` this is `sincos_1d` exactly. A single frame lies at position 0.
    """
    if frames == video_length:
        return sincos_1d(dim, frames, scale)
    return sincos(dim, np.linspace(0.0, video_length - 1, frames) / scale)


def timestep_embedding(timestep: np.ndarray, dim: int = 256) -> np.ndarray:
    """Cosines, then sines, of the timesteps (B,), which may be fractional, at dim/2 frequencies: float32 (B, dim).

    Exponents, frequencies and angles (up to 1000, where float32 is coarse) are rounded to float32, as the released weights saw them.
    """
    half = dim // 2
    exponents = np.arange(half, dtype=np.float32) * np.float32(-np.log(BASE)) / np.float32(half)
    frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)
    angles = (timestep.astype(np.float32)[:, None] * frequencies).astype(np.float64)
    return np.concatenate([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def rope_1d(dim: int, length: int, scale: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines that rotate the heads of `length` frames (arXiv:2104.09864): float32 (length, dim) each.

    Positions are divided by `scale` and rounded down, as the reference does, so neighbours may share one.
    """
    return _rotation(dim, np.arange(length) // scale)


def rope_2d(dim: int, grid: tuple[int, int], scale: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The same for a grid (h, w) of patches, rows first: the first half of a head turns by row, the second by column."""
    height, width = grid
    rows = _rotation(dim // 2, np.repeat(np.arange(height) // scale, width))
    columns = _rotation(dim // 2, np.tile(np.arange(width) // scale, height))
    return np.concatenate([rows[0], columns[0]], 1), np.concatenate([rows[1], columns[1]], 1)


def _rotation(dim: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Channel i turns together with channel i + dim/2."""
    table = sincos(dim, positions)
    sines, cosines = table[:, : dim // 2], table[:, dim // 2 :]
    return np.tile(cosines, (1, 2)), np.tile(sines, (1, 2))
