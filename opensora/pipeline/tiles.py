"""Frames in overlapping tiles."""

from collections.abc import Callable, Sequence
from itertools import pairwise, product
from math import ceil

import numpy as np

Span = tuple[int, int]


def spans(size: int, largest: int, overlap: int) -> list[Span]:
    """Equally long parts (start, stop) of `size` pixels, at most `largest`, that overlap by `overlap`."""
    if size <= largest:
        return [(0, size)]
    assert overlap < largest
    count = ceil((size - overlap) / (largest - overlap))
    length = ceil((size + (count - 1) * overlap) / count)
    starts = [number * (size - length) // (count - 1) for number in range(count)]
    return [(start, start + length) for start in starts]


def blended(
    images: Sequence[np.ndarray],
    largest: tuple[int, int],
    overlap: int,
    compute: Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]],
) -> list[np.ndarray]:
    """Apply `compute` to images (N, C, H, W) tile by tile; its results have the same size.

    largest: height and width of a tile. In the overlaps one tile fades into the next.
    """
    size = images[0].shape[2:]
    parts = [spans(whole, most, overlap) for whole, most in zip(size, largest, strict=True)]
    if len(parts[0]) == len(parts[1]) == 1:
        return list(compute(images))
    sums: list[np.ndarray] = []
    weights = np.zeros(size, np.float32)
    for (top, bottom), (left, right) in product(*parts):
        weight = np.outer(_fade(top, bottom, size[0], overlap), _fade(left, right, size[1], overlap))
        results = compute([image[:, :, top:bottom, left:right] for image in images])
        sums = sums or [np.zeros((*result.shape[:2], *size), np.float32) for result in results]
        for total, result in zip(sums, results, strict=True):
            total[:, :, top:bottom, left:right] += weight * result
        weights[top:bottom, left:right] += weight
    return [total / weights for total in sums]


def _fade(start: int, stop: int, size: int, overlap: int) -> np.ndarray:
    """The weight of a span's pixels (stop - start,): 1, but it grows over the overlap from an inner end."""
    places = np.arange(stop - start, dtype=np.float32) + 1
    weight = np.ones_like(places)
    if start > 0:
        weight = np.minimum(weight, places / (overlap + 1))
    if stop < size:
        weight = np.minimum(weight, places[::-1] / (overlap + 1))
    return weight


def joined(
    images: np.ndarray,
    largest: int,
    margin: int,
    factor: int,
    compute: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Apply `compute` to images (N, C, H, W) tile by tile: (N, C', factor * H, factor * W).

    A result's pixel may depend on the `margin` pixels around its place, and is taken from a tile that has
    them: then it is the same as that of the whole image.
    """
    height, width = images.shape[2:]
    rows, columns = (_kept(spans(size, largest, 2 * margin)) for size in (height, width))
    return _assembled(images, rows, columns, factor, compute)


def _assembled(
    images: np.ndarray,
    rows: Sequence[tuple[Span, Span]],
    columns: Sequence[tuple[Span, Span]],
    factor: int,
    compute: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """The results of tiles, joined. rows, columns: spans of the tiles, and of the parts that are kept."""
    if len(rows) == len(columns) == 1:
        return compute(images)
    height, width = images.shape[2:]
    result = np.empty(0, np.float32)
    for ((top, bottom), kept_rows), ((left, right), kept_columns) in product(rows, columns):
        found = compute(images[:, :, top:bottom, left:right])
        if not result.size:
            result = np.empty((*found.shape[:2], factor * height, factor * width), found.dtype)
        here = found[:, :, _scaled(kept_rows, top, factor), _scaled(kept_columns, left, factor)]
        result[:, :, _scaled(kept_rows, 0, factor), _scaled(kept_columns, 0, factor)] = here
    return result


def _kept(parts: list[Span]) -> list[tuple[Span, Span]]:
    """Overlapping parts, each with the part of it that is kept: up to the middle of each overlap."""
    edges = [(after[0] + before[1]) // 2 for before, after in pairwise(parts)]
    kept = pairwise([parts[0][0], *edges, parts[-1][1]])
    return list(zip(parts, kept, strict=True))


def _scaled(part: Span, origin: int, factor: int) -> slice:
    return slice(factor * (part[0] - origin), factor * (part[1] - origin))


def chopped(
    images: np.ndarray, part: int, margin: int, factor: int, compute: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Apply `compute` to images (N, C, H, W) tile by tile, as RGT's authors divide them.

    For networks to which every pixel matters: size // part + 1 equal parts along each axis, computed with
    `margin` pixels more at inner sides. The image is mirrored at its lower and right border to a multiple of
    their number.
    """
    height, width = images.shape[2:]
    counts = height // part + 1, width // part + 1
    more = [(0, -size % count) for size, count in zip((height, width), counts, strict=True)]
    padded = np.pad(images, ((0, 0), (0, 0), *more), mode="symmetric")
    rows, columns = (
        _with_margins(size, count, margin) for size, count in zip(padded.shape[2:], counts, strict=True)
    )
    return _assembled(padded, rows, columns, factor, compute)[:, :, : factor * height, : factor * width]


def _with_margins(size: int, count: int, margin: int) -> list[tuple[Span, Span]]:
    """`count` equal parts with a margin at inner sides, each with the part of it that is kept."""
    length = size // count
    kept = [(number * length, (number + 1) * length) for number in range(count)]
    return [((max(0, start - margin), min(size, stop + margin)), (start, stop)) for start, stop in kept]
