"""Weights by the formula with which reference tensors were made, so that the weights need no file."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def weights_of(shapes: Mapping[str, tuple[int, ...]], formula: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The weights of these names and shapes. formula: "weights_formula" of the reference's JSON file."""
    return {
        name: _weight(name, shapes[name], np.random.default_rng([formula["seed"], place]), formula)
        for place, name in enumerate(sorted(shapes))
    }


def _weight(
    name: str, shape: tuple[int, ...], rng: np.random.Generator, formula: Mapping[str, Any]
) -> np.ndarray:
    spread = 2 * rng.random(int(np.prod(shape))).reshape(shape) - 1
    if len(shape) > 1:
        values = formula["gain"] * np.sqrt(3 / np.prod(shape[1:])) * spread
    elif name.endswith("weight"):
        offset, amplitude = formula["one_dim_weight"]
        values = offset + amplitude * spread
    else:
        values = formula["other"] * spread
    weight: np.ndarray = values.astype(np.float32)
    return weight
