"""Initial weights. Drawing float32 is faster than rounding float64, and needs no second copy."""

from collections.abc import Callable

import numpy as np

Initialiser = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
"""A function (rng, shape) -> float32 array of that shape; a weight's shape is (out, in, *kernel)."""


def uniform(rng: np.random.Generator, shape: tuple[int, ...], bound: float) -> np.ndarray:
    """float32 values, uniform in [-bound, bound)."""
    values = rng.random(shape, np.float32)
    values *= np.float32(2.0 * bound)
    values -= np.float32(bound)
    return values


def normal(rng: np.random.Generator, shape: tuple[int, ...], deviation: float) -> np.ndarray:
    """float32 values, normal with mean 0."""
    values = rng.standard_normal(shape, np.float32)
    values *= np.float32(deviation)
    return values


def zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape, np.float32)


def ones(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.ones(shape, np.float32)


def xavier(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform, with the variance 2 / (fan in + fan out) (Glorot and Bengio 2010, equation 16)."""
    return uniform(rng, shape, np.sqrt(6.0 / (np.prod(shape[1:]) + shape[0])))


def mean_kernel(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A depthwise convolution (C, 1, *kernel) that takes the mean of its inputs."""
    return np.full(shape, 1.0 / np.prod(shape[2:]), np.float32)


def normally(deviation: float) -> Initialiser:
    """The initialiser that draws `normal` values with this standard deviation."""
    return lambda rng, shape: normal(rng, shape, deviation)
