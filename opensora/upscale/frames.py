"""The frames of a video, enlarged in batches and tiles: memory does not grow with their number or size."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from opensora.engine import Engine
from opensora.models import RGT, SRVGG
from opensora.models.rgt.config import RGTConfig
from opensora.models.srvgg.config import PACKAGED, SRVGGConfig
from opensora.pipeline.tiles import chopped, joined
from opensora.weights import WeightsError, open_file

TILE = 512  # pixels of the longest side of a tile; several frames that are smaller go through together
PART, MARGIN = 200, 16  # of RGT's tiles, as its authors choose them

Compute = Callable[[np.ndarray], np.ndarray]


class Upscaler:
    """Enlarges frames by `factor`. denoise: share of the network in the result."""

    def __init__(self, model: SRVGG | RGT, factor: int, denoise: float) -> None:
        if factor > model.scale:
            raise WeightsError(
                f"the weights enlarge {model.scale} times and not {factor}: use --factor {model.scale}"
            )
        self._model, self._factor, self._denoise = model, factor, denoise

    def __call__(self, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """uint8 (H, W, 3), all of one size -> uint8 (factor * H, factor * W, 3)."""
        first = next(frames, None)
        if first is None:
            return
        size = max(1, TILE**2 // (first.shape[0] * first.shape[1]))
        batch = [first, *islice(frames, size - 1)]
        length = len(batch)  # the last batch is filled, as another length would be compiled again
        while batch:
            filled = np.stack([*batch, *batch[-1:] * (length - len(batch))])  # (B, H, W, 3)
            levels = self.in_tiles(_to_images(filled), self._levels)
            yield from np.ascontiguousarray(levels.transpose(0, 2, 3, 1))[: len(batch)]
            batch = list(islice(frames, size))

    def in_tiles(self, images: np.ndarray, compute: Compute, tile: int = TILE) -> np.ndarray:
        """`compute` on images (B, 3, H, W) that may be large. tile: pixels of the longest side."""
        if isinstance(self._model, RGT):
            return chopped(images, PART, MARGIN, self._factor, compute)
        margin = self._model.config.margin + 1  # one more for the reduction to a smaller factor
        return joined(images, tile, margin, self._factor, compute)

    def compute(self, images: np.ndarray) -> np.ndarray:
        """float32 (B, 3, H, W) in 0..1 -> (B, 3, factor * H, factor * W), not clipped."""
        return self._model.engine.output(self._model(images, self._factor, self._denoise))

    def _levels(self, images: np.ndarray) -> np.ndarray:
        """The same as uint8."""
        return np.rint(np.clip(self.compute(images), 0, 1) * 255).astype(np.uint8)


def _to_images(frames: np.ndarray) -> np.ndarray:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in 0..1."""
    return np.ascontiguousarray(frames.transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def open_upscaler(weights: str | Path | None, factor: int, denoise: float, engine: Engine) -> Upscaler:
    """An upscaler. weights: None for the packaged ones. Raises WeightsError for those of another network."""
    source = weights or PACKAGED
    shapes = {name: entry.shape for name, entry in open_file(source).entries.items()}
    if SRVGGConfig.of_shapes(shapes) is not None:
        return Upscaler(SRVGG.from_pretrained(source, engine=engine), factor, denoise)
    if RGTConfig.of_shapes(shapes) is not None:
        return Upscaler(RGT.from_pretrained(source, engine=engine), factor, denoise)
    raise WeightsError(f"{source} holds neither SRVGGNetCompact nor RGT: use the weights of one of them")
