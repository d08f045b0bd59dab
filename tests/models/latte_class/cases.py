"""The small models of the reference, and what they give."""

from math import prod

import numpy as np

from opensora.engine import open_engine
from opensora.models.latte_class.config import LatteClassConfig
from opensora.models.latte_class.model import Latte
from opensora.models.latte_class.weights import weight_shapes
from opensora.nn import Tensor
from tests import reference
from tests.reference.formula import weights_of

FOLDER = "latte_class"
NAMES = {"dit": "hist", "single": "single", "zero": "zero"}


def settings(variant: str, **changes: object) -> dict[str, object]:
    return {**reference.read_json(f"{FOLDER}/{NAMES[variant]}_config"), **changes}


def arrays(variant: str, **changes: object) -> dict[str, np.ndarray]:
    """The weights of a variant's small model."""
    if variant == "dit":
        weights = reference.load(f"{FOLDER}/hist_weights")  # with tables of positions
        if changes.get("extras") == 1:
            del weights["y_embedder.embedding_table.weight"]
        return weights
    config = LatteClassConfig.from_dict(settings(variant))
    return weights_of(weight_shapes(config), reference.read_json(f"{FOLDER}/{variant}")["weights_formula"])


def build(variant: str, engine: str = "openvino", **changes: object) -> Latte:
    opened = open_engine(engine)
    config = LatteClassConfig.from_dict(settings(variant, **changes))
    return Latte(config, opened.weights(arrays(variant, **changes)), opened)


def tensors(variant: str) -> dict[str, np.ndarray]:
    return reference.load(f"{FOLDER}/{NAMES[variant]}")


def frames_second(x: np.ndarray) -> np.ndarray:
    """(B, T, C, H, W) -> (B, C, T, H, W), between the layout of the reference's "dit" and ours."""
    return np.ascontiguousarray(np.swapaxes(x, 1, 2))


def predict(
    model: Latte, x: np.ndarray, t: np.ndarray, labels: np.ndarray | None = None, mask: Tensor = None
) -> np.ndarray:
    return model.engine.output(model(model.engine.input(x), t, labels, mask))


def parameters(config: LatteClassConfig) -> int:
    return sum(prod(shape) for shape in weight_shapes(config).values())
