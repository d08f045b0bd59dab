"""The frames of a video, enlarged in batches and tiles: memory does not grow with their number or size."""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from opensora.engine import Engine
from opensora.models.srvgg import SRVGG
from opensora.pipeline.tiles import joined
from opensora.weights import WeightsError

TILE = 512  # pixels of the longest side of a tile; several frames that are smaller go through together


class Upscaler:
    """Enlarges frames by `factor`. denoise: share of the network in the result."""

    def __init__(self, model: SRVGG, factor: int, denoise: float) -> None:
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
            levels = joined(_to_images(filled), TILE, self.margin, self._factor, self._levels)
            yield from np.ascontiguousarray(levels.transpose(0, 2, 3, 1))[: len(batch)]
            batch = list(islice(frames, size))

    @property
    def margin(self) -> int:
        """Pixels around its place that a pixel of the result depends on."""
        return self._model.config.margin + 1  # one more for the reduction to a smaller factor

    def compute(self, images: np.ndarray) -> np.ndarray:
        """float32 (B, 3, H, W) in 0..1 -> (B, 3, factor * H, factor * W), not clipped."""
        return self._model.engine.output(self._model(images, self._factor, self._denoise))

    def _levels(self, images: np.ndarray) -> np.ndarray:
        """The same as uint8."""
        return np.rint(np.clip(self.compute(images), 0, 1) * 255).astype(np.uint8)


def _to_images(frames: np.ndarray) -> np.ndarray:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in 0..1."""
    return np.ascontiguousarray(frames.transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def open_upscaler(weights: str | None, factor: int, denoise: float, engine: Engine) -> Upscaler:
    """An upscaler. weights: None for the packaged ones. Raises WeightsError for those of another network."""
    model = (
        SRVGG.from_pretrained(engine=engine)
        if weights is None
        else SRVGG.from_pretrained(weights, engine=engine)
    )
    return Upscaler(model, factor, denoise)
