"""The reference tiling of CausalVAE: overlapping tiles in space, chunks that share one frame in time, blended linearly.

GroupNorm sees one tile at a time, so the result differs from the untiled one; it is kept equal to the reference, to the bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from opensora.runtime import mindspore

ms = mindspore()

SPACE_STRIDE, TIME_STRIDE = 8, 4
UNBOUNDED = 2**20


@dataclass(frozen=True)
class Tiling:
    """Tile `size` in pixels, chunk length in `frames`, and the share of a tile that overlaps its neighbour.

    Raises ValueError for a size or frame count that the VAE's strides do not divide, or an overlap outside [0, 1).
    """

    size: int = 256
    frames: int = 65
    overlap: float = 0.25

    def __post_init__(self) -> None:
        if self.size < SPACE_STRIDE or self.size % SPACE_STRIDE:
            raise ValueError(f"tile size {self.size} is not a positive multiple of {SPACE_STRIDE}")
        if self.frames <= TIME_STRIDE or (self.frames - 1) % TIME_STRIDE:
            raise ValueError(
                f"tile frames {self.frames} is not a multiple of {TIME_STRIDE} plus one, and at least {TIME_STRIDE + 1}"
            )
        if not 0.0 <= self.overlap < 1.0:
            raise ValueError(f"tile overlap {self.overlap} is not in [0, 1)")

    @classmethod
    def chosen(cls, enable_tiling: bool, enable_time_chunk: bool, overlap: float) -> "Tiling | None":
        """The reference's tiles of 256 pixels and 65 frames; with enable_time_chunk alone whole frames; with neither None."""
        if enable_tiling:
            return cls(overlap=overlap)
        return cls(size=UNBOUNDED, overlap=overlap) if enable_time_chunk else None

    @property
    def latent_size(self) -> int:
        return self.size // SPACE_STRIDE

    @property
    def latent_frames(self) -> int:
        return (self.frames - 1) // TIME_STRIDE + 1

    def splits_video(self, shape: tuple[int, ...]) -> bool:
        """Whether a video (B, 3, F, H, W) is larger than one tile."""
        return shape[2] > self.frames or max(shape[3:]) > self.size

    def splits_latents(self, shape: tuple[int, ...]) -> bool:
        """Whether latents (B, 4, T, h, w) are larger than one tile."""
        return shape[2] > self.latent_frames or max(shape[3:]) > self.latent_size


def tiled_encode(encode: Callable[[Any], Any], video: Any, tiling: Tiling) -> np.ndarray:
    """Moments (B, 8, T, h, w) of a video (B, 3, F, H, W), `encode` applied tile by tile."""
    return _tiled(encode, video, tiling.frames, tiling.size, tiling.latent_size, tiling.overlap)


def tiled_decode(decode: Callable[[Any], Any], latents: Any, tiling: Tiling) -> np.ndarray:
    """The video (B, 3, F, H, W) of latents (B, 4, T, h, w), `decode` applied tile by tile."""
    return _tiled(decode, latents, tiling.latent_frames, tiling.latent_size, tiling.size, tiling.overlap)


def _tiled(
    network: Callable[[Any], Any], x: Any, frames: int, size: int, size_out: int, overlap: float
) -> np.ndarray:
    source = x.asnumpy()
    chunks = []
    for start, end in time_chunks(source.shape[2], frames):
        chunk = _tiled_in_space(network, source[:, :, start:end], size, size_out, overlap)
        chunks.append(chunk if start == 0 else chunk[:, :, 1:])
    return np.concatenate(chunks, axis=2)


def time_chunks(length: int, frames: int) -> list[tuple[int, int]]:
    """Spans of at most `frames` frames, each starting on the last frame of the one before."""
    starts = list(range(0, length, frames - 1))
    if len(starts) == 1:
        return [(0, length)]
    spans = [(start, min(after + 1, length)) for start, after in pairwise(starts)]
    return spans if spans[-1][1] == length else [*spans, (starts[-1], length)]


def _tiled_in_space(
    network: Callable[[Any], Any], source: np.ndarray, size: int, size_out: int, overlap: float
) -> np.ndarray:
    step = int(size * (1 - overlap))
    blend = int(size_out * overlap)
    rows: list[list[np.ndarray]] = []
    for top in range(0, source.shape[3], step):
        row = []
        for left in range(0, source.shape[4], step):
            tile = np.ascontiguousarray(source[..., top : top + size, left : left + size])
            row.append(network(ms.Tensor(tile)).asnumpy().copy())
        rows.append(row)
    keep = size_out - blend
    bands = []
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            if i > 0:
                _blend(rows[i - 1][j], tile, blend, axis=3)
            if j > 0:
                _blend(row[j - 1], tile, blend, axis=4)
        bands.append(np.concatenate([tile[..., :keep, :keep] for tile in row], axis=4))
    return np.concatenate(bands, axis=3)


def _blend(before: np.ndarray, after: np.ndarray, extent: int, axis: int) -> None:
    """Fade from the end of `before` into the start of `after`, in place: later tiles read what was blended already."""
    extent = min(before.shape[axis], after.shape[axis], extent)
    for i in range(extent):
        share = i / extent
        # Views of one row or column of pixels.
        here = np.moveaxis(after, axis, 0)[i]
        here[...] = np.moveaxis(before, axis, 0)[before.shape[axis] - extent + i] * np.float32(
            1 - share
        ) + here * np.float32(share)
