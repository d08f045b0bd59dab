"""AMT's weights by the formula with which the reference was made, of AMT-G's size and small."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from opensora.models.amt.config import AMTConfig, weight_shapes
from tests import reference
from tests.reference.formula import weights_of

SMALL: dict[str, Any] = {"channels": (6, 8, 10, 12), "skip_channels": 4, "num_flows": 2}


@cache
def formula() -> dict[str, Any]:
    found: dict[str, Any] = reference.read_json("amt_g/amt_g")["weights_formula"]
    return found


@cache
def release_weights() -> Mapping[str, np.ndarray]:
    return weights_of(weight_shapes(AMTConfig()), formula())


@cache
def small_weights() -> Mapping[str, np.ndarray]:
    return weights_of(weight_shapes(AMTConfig.from_dict(SMALL)), formula())
