"""The reference tiling of CausalVAE: blended tiles in space, and chunks in time that share a frame.

GroupNorm sees one tile at a time, so the result differs from the untiled one; it equals the reference's, to
the bit. Does not import MindSpore.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np

from opensora.models.geometry import Size, Strides

UNBOUNDED = 2**20
"""Side of a tile that holds every frame whole."""


@dataclass(frozen=True)
class Tiling:
    """Tile `size` in pixels, chunk length in `frames`, and the share of a tile that overlaps its neighbour.

    Raises ValueError for tiles without pixels, a single frame, or an overlap that leaves no step from tile to
    tile.
    """

    size: int = 256
    frames: int = 65
    overlap: float = 0.25

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"tile size {self.size} is too small: use 256")
        if self.frames < 2:
            raise ValueError(f"tile frames {self.frames} are too few: use 65")
        if not 0.0 <= self.overlap < 1.0:
            raise ValueError(f"tile overlap {self.overlap} is not in [0, 1): use 0.25")
        if self.step < 1:
            raise ValueError(
                f"tiles of {self.size} with overlap {self.overlap} have no step: use larger tiles"
            )

    @property
    def step(self) -> int:
        """The distance from the start of a tile to that of the next."""
        return int(self.size * (1 - self.overlap))

    def in_latents(self, strides: Strides) -> "Tiling":
        """The same tiles in latents.

        Raises ValueError for tiles that the autoencoder's strides do not divide.
        """
        time, space = strides
        if self.size % space:
            raise ValueError(f"tile size {self.size} is not a multiple of the autoencoder's stride {space}")
        if self.frames <= time or (self.frames - 1) % time:
            raise ValueError(
                f"tile frames {self.frames} is not a multiple of {time} plus one, and at least {time + 1}"
            )
        frames, size, _ = strides.latent_size((self.frames, self.size, self.size))
        return Tiling(size, frames, self.overlap)

    def splits(self, size: Sequence[int]) -> bool:
        """True if a video (frames, height, width) is larger than one tile."""
        return size[0] > self.frames or max(size[1:]) > self.size

    def first(self, size: Sequence[int]) -> Size:
        """Frames, height and width of the largest tile of a video."""
        return min(size[0], self.frames), min(size[1], self.size), min(size[2], self.size)

    def tiles(self, size: Sequence[int]) -> Iterator[Size]:
        """Frames, height and width of every tile of a video."""
        lengths = [end - start for start, end in time_chunks(size[0], self.frames)]
        heights, widths = (
            [min(self.size, length - start) for start in range(0, length, self.step)] for length in size[1:]
        )
        return product(lengths, heights, widths)


def tiled(
    network: Callable[[np.ndarray], np.ndarray], x: np.ndarray, tiles: Tiling, out: Tiling
) -> np.ndarray:
    """`network` applied to x (B, C, T, H, W) tile by tile.

    tiles: measured as x is, `out` as the result is, one in pixels and the other in latents.
    """
    chunks = []
    for start, end in time_chunks(x.shape[2], tiles.frames):
        chunk = _tiled_in_space(network, x[:, :, start:end], tiles, out)
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
    network: Callable[[np.ndarray], np.ndarray], x: np.ndarray, tiles: Tiling, out: Tiling
) -> np.ndarray:
    blend = int(out.size * out.overlap)
    rows: list[list[np.ndarray]] = []
    for top in range(0, x.shape[3], tiles.step):
        row = []
        for left in range(0, x.shape[4], tiles.step):
            tile = x[..., top : top + tiles.size, left : left + tiles.size]
            row.append(network(np.ascontiguousarray(tile)).copy())
        rows.append(row)
    keep = out.size - blend
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
    """Fade from the end of `before` into the start of `after`, in place: later tiles read the result."""
    extent = min(before.shape[axis], after.shape[axis], extent)
    for i in range(extent):
        share = i / extent
        # Views of one row or column of pixels.
        here = np.moveaxis(after, axis, 0)[i]
        there = np.moveaxis(before, axis, 0)[before.shape[axis] - extent + i]
        here[...] = there * np.float32(1 - share) + here * np.float32(share)
