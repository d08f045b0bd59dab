"""AMT's weights by the formula with which the reference was made, of AMT-G's size and small."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from opensora.models.amt.config import AMTConfig, Shapes, weight_shapes
from tests import reference

SMALL: dict[str, Any] = {"channels": (6, 8, 10, 12), "skip_channels": 4, "num_flows": 2}


@cache
def formula() -> dict[str, Any]:
    found: dict[str, Any] = reference.read_json("amt_g/amt_g")["weights_formula"]
    return found


@cache
def release_weights() -> Mapping[str, np.ndarray]:
    return weights_of(weight_shapes(AMTConfig()))


@cache
def small_weights() -> Mapping[str, np.ndarray]:
    return weights_of(weight_shapes(AMTConfig.from_dict(SMALL)))


def weights_of(shapes: Shapes) -> dict[str, np.ndarray]:
    return {
        name: _weight(name, shapes[name], np.random.default_rng([formula()["seed"], i]))
        for i, name in enumerate(sorted(shapes))
    }


def _weight(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    spread = 2 * rng.random(int(np.prod(shape))).reshape(shape) - 1
    if len(shape) > 1:
        values = formula()["gain"] * np.sqrt(3 / np.prod(shape[1:])) * spread
    elif name.endswith("weight"):
        offset, amplitude = formula()["one_dim_weight"]
        values = offset + amplitude * spread
    else:
        values = formula()["other"] * spread
    weight: np.ndarray = values.astype(np.float32)
    return weight
