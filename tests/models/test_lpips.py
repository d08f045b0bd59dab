import zlib

import mindspore as ms
import numpy as np
import pytest

from opensora.engine.mindspore import set_jit
from opensora.models.lpips import LPIPS, SLICES
from tests import reference

WIDTHS = (64, 128, 256, 512, 512)
NARROW = (4, 4, 6, 6, 8)


def shapes(widths: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    result: dict[str, tuple[int, ...]] = {}
    before = 3
    for k, (convolutions, width) in enumerate(zip(SLICES, widths, strict=True)):
        for n in convolutions:
            result[f"net.slice{k + 1}.{n}.weight"] = (width, before, 3, 3)
            result[f"net.slice{k + 1}.{n}.bias"] = (width,)
            before = width
        result[f"lin{k}.model.1.weight"] = (1, width, 1, 1)
    return result


def by_formula(widths: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The formula with which the reference was made."""
    weights = {}
    for name, shape in shapes(widths).items():
        values = np.sin(np.arange(np.prod(shape)) * 0.7 + zlib.crc32(name.encode()) % 1000).reshape(shape)
        fan = np.prod(shape[1:])
        if name.startswith("lin"):
            values = (1 + values) / fan
        elif name.endswith("bias"):
            values = 0.1 * values
        else:
            values = 2 * values / np.sqrt(fan)
        weights[name] = values.astype(np.float32)
    return weights


def images(seed: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (2, 3, size, size)).astype(np.float32)


def test_names_are_the_reference() -> None:
    assert set(shapes(WIDTHS)) == set(reference.read_json("gan/lpips_formula")["names"])


@pytest.mark.parametrize("jit", [True, False])
def test_distance_is_the_reference(jit: bool) -> None:
    case = reference.load("gan/lpips_formula")
    set_jit(jit)
    try:
        distance = LPIPS.from_weights(by_formula(WIDTHS))(ms.Tensor(case["a"]), ms.Tensor(case["b"]))
    finally:
        set_jit(True)
    np.testing.assert_allclose(distance.asnumpy(), case["lpips"], rtol=1e-4)


def test_distance_is_symmetric_and_zero_to_itself() -> None:
    lpips = LPIPS.from_weights(by_formula(NARROW))
    a, b = ms.Tensor(images(0)), ms.Tensor(images(1))
    np.testing.assert_allclose(lpips(a, b).asnumpy(), lpips(b, a).asnumpy(), rtol=1e-5)
    assert (lpips(a, b).asnumpy() > 0).all()
    assert (lpips(a, a).asnumpy() == 0).all()


@pytest.mark.parametrize("jit", [True, False])
def test_gradients_are_the_slopes(jit: bool) -> None:
    weights = by_formula(NARROW)
    a, b = images(0), images(1)
    image = ms.Tensor(a)
    set_jit(jit)
    try:
        distance, tape = LPIPS.from_weights(weights).forward_with_tape(image, ms.Tensor(b))
        gradients, (by_image,) = tape.gradients([(distance, ms.ops.ones_like(distance))], wanted=[image])
    finally:
        set_jit(True)
    assert set(gradients) == set(weights)

    def total(image: np.ndarray, head: np.ndarray) -> float:
        lpips = LPIPS.from_weights({**weights, "lin2.model.1.weight": head})
        return float(lpips(ms.Tensor(image), ms.Tensor(b)).asnumpy().astype(np.float64).sum())

    head, by_head = weights["lin2.model.1.weight"], gradients["lin2.model.1.weight"].asnumpy()
    assert total(a, 2 * head) - total(a, head) == pytest.approx(float((by_head * head).sum()), rel=1e-3)
    slope = by_image.asnumpy()
    step = 1e-3 * slope / np.linalg.norm(slope)
    assert (total(a + step, head) - total(a - step, head)) / 2 == pytest.approx(
        float((slope * step).sum()), rel=2e-2
    )


def test_gradient_is_finite_where_no_feature_is_active() -> None:
    weights = {
        name: -np.abs(value) if name.endswith(("1.0.bias", "1.2.bias")) else value
        for name, value in by_formula(NARROW).items()
    }
    weights["net.slice1.2.weight"][:] = 0
    image = ms.Tensor(images(0))
    distance, tape = LPIPS.from_weights(weights).forward_with_tape(image, ms.Tensor(images(1)))
    _, (gradient,) = tape.gradients([(distance, ms.ops.ones_like(distance))], wanted=[image])
    assert np.isfinite(gradient.asnumpy()).all()


def test_published_names_are_understood() -> None:
    weights = by_formula(NARROW)
    published = {
        name.removeprefix("net.slice")[2:] if name.startswith("net") else name: value
        for name, value in weights.items()
    }
    published = {
        name if name.startswith("lin") else f"features.{name}": value for name, value in published.items()
    }
    published |= {
        "classifier.0.weight": np.ones((2, 2), np.float32),
        "scaling_layer.shift": np.ones((1, 3, 1, 1), np.float32),
    }
    assert set(LPIPS.from_weights(published).weights) == set(weights)


def test_missing_weights_are_named() -> None:
    weights = by_formula(NARROW)
    del weights["net.slice3.12.bias"], weights["lin4.model.1.weight"]
    with pytest.raises(ValueError, match=r"lack lin4\.model\.1\.weight, net\.slice3\.12\.bias"):
        LPIPS.from_weights(weights)
