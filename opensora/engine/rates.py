"""The speed of an engine on this CPU, measured in a moment, for estimates before a run."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

SECONDS = 0.1
"""Time for each measurement, beside compiling."""
SIZE = 768
CHANNELS, FRAMES, SIDE, TAPS = 64, 4, 32, 27


class Rates(NamedTuple):
    """Floating-point operations per second."""

    products: float
    """Rate of matrix products."""
    convolutions: float
    """Rate of 3-D convolutions."""


def measure_rates(engine: str, precision: str = "fp32") -> Rates:
    """The rates of "openvino"; of "mindspore", whose import would take seconds, what numpy's products let
    expect.
    """
    if engine == "openvino":
        from opensora.engine.openvino import convolve_once, multiply_once

        convolution = 2 * FRAMES * SIDE**2 * TAPS * CHANNELS**2
        return Rates(
            2 * SIZE**3 / _best(multiply_once(SIZE, precision)),
            convolution / _best(convolve_once(CHANNELS, FRAMES, SIDE, precision)),
        )
    square = np.ones((SIZE, SIZE), np.float32)
    products = 2 * SIZE**3 / _best(lambda: square @ square)
    return Rates(products, products)


def _best(run: Callable[[], object]) -> float:
    """Seconds of the fastest of several calls."""
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end or best == float("inf"):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best
