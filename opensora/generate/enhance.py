"""After decoding: frames are enlarged, then others are put between them."""

import numpy as np

from opensora.engine import Engine
from opensora.generate.enhance_options import EnhanceOptions
from opensora.interpolate.frames import interpolated
from opensora.interpolate.run import open_method
from opensora.upscale.frames import open_upscaler


class Enhancement:
    """Enlarges and interpolates the frames of a video, as far as the options ask for it.

    Raises WeightsError for weights that do not fit.
    """

    def __init__(self, options: EnhanceOptions, engine: Engine) -> None:
        weights = options.upscale_weights
        self._enlarge = options.upscale and open_upscaler(weights, options.upscale, 1.0, engine)
        self._factor = options.interpolate or 1
        self._method = options.interpolate and open_method(options.interpolate_weights, lambda: engine)

    def __call__(self, frames: np.ndarray, fps: float) -> tuple[np.ndarray, float]:
        """uint8 (F, H, W, 3) at a rate -> frames of another number and size, and their rate."""
        if self._enlarge:
            frames = np.stack(list(self._enlarge(iter(frames))))
        if self._method:
            frames = np.stack(list(interpolated(frames, self._factor, self._method)))
        return frames, fps * self._factor
