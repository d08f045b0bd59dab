"""A tiny release that PyTorch wrote, tests/reference/torch/release. Its values follow a formula."""

from math import prod
from pathlib import Path

import numpy as np

from opensora.models.causal_vae.config import weight_shapes as vae_shapes
from opensora.models.causal_vae.model import CausalVAEConfig
from opensora.models.latte.config import LatteConfig
from opensora.models.latte.config import weight_shapes as latte_shapes
from opensora.models.t5.config import T5Config
from opensora.models.t5.config import weight_shapes as t5_shapes
from opensora.weights import load_config

RELEASE = Path(__file__).parent.parent / "reference" / "torch" / "release"
LATTE = LatteConfig.from_dict(load_config(RELEASE / "5x32x32"))
VAE = CausalVAEConfig.from_dict(load_config(RELEASE / "vae"))
T5 = T5Config.from_dict(load_config(RELEASE / "text_encoder"))


def values(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The tensors of the release. Item i of tensor n, by order of names, is ((37 i + 11 n) % 101 - 50) / 64.

    These values are exact in 16 bits.
    """
    return {
        name: (((37 * np.arange(prod(shape)) + 11 * n) % 101 - 50) / 64).reshape(shape).astype(np.float32)
        for n, (name, shape) in enumerate(sorted(shapes.items()))
    }


LATTE_VALUES, VAE_VALUES, T5_VALUES = (
    values(latte_shapes(LATTE)),
    values(vae_shapes(VAE)),
    values(t5_shapes(T5)),
)


def assert_same(loaded: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(loaded) == set(expected)
    for name, value in expected.items():
        assert loaded[name].shape == value.shape, name
        np.testing.assert_array_equal(loaded[name], value, err_msg=name)
