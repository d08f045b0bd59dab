"""RGT: parity with the reference on both engines, sizes, files and bad inputs."""

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from opensora.models import RGT
from opensora.models.rgt.config import RGTConfig, tables, weight_shapes
from opensora.models.rgt.windows import offsets, windows
from opensora.weights import WeightsError
from tests import reference
from tests.reference.formula import weights_of

ENGINES = pytest.mark.parametrize("engine", ["mindspore", "openvino"])
TINY = RGTConfig(embed_dim=48, depth=(6, 6), num_heads=4, split_size=(4, 8), upscale=2)


@cache
def tiny_weights() -> Mapping[str, np.ndarray]:
    return weights(TINY)


def weights(config: RGTConfig) -> dict[str, np.ndarray]:
    return weights_of(weight_shapes(config), reference.read_json("rgt/rgt")["weights_formula"])


def tiny(engine: str = "openvino") -> RGT:
    return RGT.from_weights(tiny_weights(), TINY.split_size, engine=engine)


def image(height: int, width: int, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(0).random((batch, 3, height, width), np.float32)


def test_names_and_shapes_are_the_release() -> None:
    """Of the first two groups of x4, which the others repeat."""
    published = reference.read_json("rgt/keys_x4")["tensors"]
    config = RGTConfig()
    shapes = {name: list(shape) for name, shape in weight_shapes(config).items()}
    computed = set(tables(config))
    kept = {name: shape for name, shape in published.items() if name not in computed}
    assert kept.items() <= shapes.items() and len(shapes) == 1904
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 13_365_543
    x2 = weight_shapes(RGTConfig(upscale=2))
    assert sum(int(np.prod(shape)) for shape in x2.values()) == 13_217_831


@pytest.mark.slow
@ENGINES
@pytest.mark.parametrize("case", ["tiny0", "tiny1"])
def test_the_reference(engine: str, case: str) -> None:
    tensors = reference.load("rgt/outputs")
    found = tiny(engine)(tensors[f"{case}.input"]).asnumpy()
    np.testing.assert_allclose(found, tensors[f"{case}.output"], rtol=1e-4, atol=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [2, 4])
def test_the_reference_of_release_size(factor: int) -> None:
    tensors, facts = reference.load("rgt/outputs"), reference.read_json("rgt/rgt")
    made = weights(RGTConfig(upscale=factor))
    content = b"".join(made[name].tobytes() for name in sorted(made))
    assert hashlib.sha256(content).hexdigest() == facts[f"x{factor}"]["sha256"]
    pixels = tensors["input"].astype(np.float32)[None] / np.float32(255)
    found = RGT.from_weights(made, engine="openvino")(pixels).asnumpy()
    expected = tensors[f"x{factor}.output"]
    np.testing.assert_allclose(found[..., ::factor, ::factor], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("is_shifted", [False, True])
def test_windows_hold_every_pixel_once(is_shifted: bool) -> None:
    places, back, regions = windows(13, 22, (4, 8), is_shifted)
    assert places.shape == (16 * 24,)
    np.testing.assert_array_equal(places[back], np.arange(13 * 22))
    assert (places == 13 * 22).sum() == 16 * 24 - 13 * 22
    assert (regions is None) != is_shifted


def test_offsets_are_those_of_pairs() -> None:
    table, pairs = offsets((2, 3))
    y, x = np.indices((2, 3)).reshape(2, -1)
    expected = np.stack([y[:, None] - y, x[:, None] - x], -1)
    np.testing.assert_array_equal(table[pairs].reshape(6, 6, 2), expected)


@pytest.mark.slow
def test_small_images_and_batches() -> None:
    model, images = tiny(), image(9, 17, batch=2)
    found = model(images).asnumpy()
    assert found.shape == (2, 3, 18, 34) and np.isfinite(found).all()
    np.testing.assert_array_equal(model(images[1:]).asnumpy(), found[1:])


def test_sizes_follow_from_the_file(tmp_path: Path) -> None:
    """Also the windows, from the tables that published files hold."""
    first = {f"layers.0.blocks.0.attn.attns.{branch}" for branch in (0, 1)}
    extra = {f"{name}.rpe_biases": np.zeros((7 * 15, 2), np.float32) for name in first}
    extra |= {f"{name}.relative_position_index": np.zeros((32, 32), np.int64) for name in first}
    save_file({**tiny_weights(), **extra}, tmp_path / "rgt.safetensors")
    assert RGT.from_pretrained(tmp_path / "rgt.safetensors", engine="openvino").config == TINY


def test_other_weights_are_refused(tmp_path: Path) -> None:
    made = {name: value for name, value in tiny_weights().items() if name != "norm.bias"}
    with pytest.raises(WeightsError, match="are not those of RGT"):
        RGT.from_weights(made)
    save_file(made, tmp_path / "part.safetensors")
    with pytest.raises(WeightsError, match=r"norm\.bias"):
        RGT.from_pretrained(tmp_path / "part.safetensors")
    save_file({"conv_first.weight": made["conv_first.weight"]}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"other\.safetensors does not hold the weights of RGT"):
        RGT.from_pretrained(tmp_path / "other.safetensors")
