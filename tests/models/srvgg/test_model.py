"""SRVGGNetCompact: parity with the reference on both engines, the packaged weights, files and bad inputs."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from opensora.models import SRVGG
from opensora.models.srvgg.config import PACKAGED, SRVGGConfig, weight_shapes
from opensora.nn.images import bicubic_taps
from opensora.weights import WeightsError
from tests import reference
from tests.reference.formula import weights_of

ENGINES = pytest.mark.parametrize("engine", ["mindspore", "openvino"])
SMALL = SRVGGConfig(num_feat=6, num_conv=2, upscale=2)


def small_weights() -> dict[str, np.ndarray]:
    return weights_of(weight_shapes(SMALL), reference.read_json("srvgg/srvgg")["formula"])


def image() -> np.ndarray:
    pixels = reference.load("srvgg/outputs")["real.image"]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32) / np.float32(255)


def bicubic(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """(..., H, W) -> (..., height, width) by the taps, in float64."""
    for axis, size in ((-2, height), (-1, width)):
        places, shares = bicubic_taps(x.shape[axis], size)
        taps = np.moveaxis(x.astype(np.float64), axis, -1)[..., places] * shares  # (..., 4, size)
        x = np.moveaxis(taps.sum(-2), -1, axis)
    return x


def test_the_packaged_weights_are_those_of_the_package() -> None:
    weights = {name: value.astype(np.float32) for name, value in load_file(PACKAGED).items()}
    assert {name: value.shape for name, value in weights.items()} == weight_shapes(SRVGGConfig())
    assert sum(value.size for value in weights.values()) == 621_424
    content = b"".join(weights[name].tobytes() for name in sorted(weights))
    expected = reference.read_json("srvgg/srvgg")["real"]["sha256_decoded"]
    assert hashlib.sha256(content).hexdigest() == expected
    assert "Xintao Wang" in (PACKAGED.parent / "LICENSE").read_text(encoding="utf-8")


@ENGINES
def test_the_reference_with_weights_by_formula(engine: str) -> None:
    case, formula = reference.load("srvgg/outputs"), reference.read_json("srvgg/srvgg")["formula"]
    weights = weights_of(weight_shapes(SRVGGConfig()), formula)
    found = SRVGG.from_weights(weights, engine=engine)(case["formula.input"]).asnumpy()
    np.testing.assert_allclose(found[..., ::3, ::3], case["formula.output"], rtol=1e-4, atol=2e-5)


@pytest.mark.slow
@ENGINES
def test_the_reference_with_the_packaged_weights(engine: str) -> None:
    case, model = reference.load("srvgg/outputs"), SRVGG.from_pretrained(engine=engine)
    for factor, step in ((4, 3), (2, 2)):
        found = model(image(), factor).asnumpy()
        expected = case[f"real.x{factor}.output"]
        np.testing.assert_allclose(found[..., ::step, ::step], expected, rtol=1e-4, atol=2e-5)
    levels = np.rint(np.clip(model(image(), 3).asnumpy()[0], 0, 1) * 255).transpose(1, 2, 0)
    assert np.abs(levels[::3, ::3] - case["real.x3.uint8"]).max() <= 1


@pytest.mark.usefixtures("operator_mode")
@ENGINES
def test_strength_blends_with_the_plain_enlargement(engine: str) -> None:
    model, x = SRVGG.from_weights(small_weights(), engine=engine), image()
    whole, plain, part = (model(x, strength=strength).asnumpy() for strength in (1, 0, 0.25))
    np.testing.assert_allclose(plain, bicubic(x, 2 * x.shape[2], 2 * x.shape[3]), atol=1e-5)
    np.testing.assert_allclose(part, 0.25 * whole + 0.75 * plain, atol=1e-5)


def test_images_of_a_batch_do_not_mix() -> None:
    model, x = SRVGG.from_weights(small_weights(), engine="openvino"), image()
    together = model(np.concatenate([x, 1 - x])).asnumpy()
    np.testing.assert_allclose(together[1:], model(1 - x).asnumpy(), atol=1e-6)


def test_sizes_follow_from_the_file(tmp_path: Path) -> None:
    save_file(small_weights(), tmp_path / "small.safetensors")
    assert SRVGG.from_pretrained(tmp_path / "small.safetensors", engine="openvino").config == SMALL


def test_other_weights_are_refused(tmp_path: Path) -> None:
    weights = small_weights()
    save_file({"conv.weight": weights["body.0.weight"]}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"other\.safetensors does not hold the weights of SRVGGNet"):
        SRVGG.from_pretrained(tmp_path / "other.safetensors")
    del weights["body.2.bias"]
    save_file(weights, tmp_path / "part.safetensors")
    with pytest.raises(WeightsError, match=r"body\.2\.bias"):
        SRVGG.from_pretrained(tmp_path / "part.safetensors")
    with pytest.raises(WeightsError, match="are not those of SRVGGNetCompact"):
        SRVGG.from_weights(weights)
