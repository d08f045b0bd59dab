from collections.abc import Iterator
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from opensora.engine.mindspore import set_jit
from opensora.models.discriminator import Discriminator
from tests import reference


@pytest.fixture(params=[True, False], ids=["jit", "operators"])
def jit(request: pytest.FixtureRequest) -> Iterator[bool]:
    set_jit(request.param)
    yield request.param
    set_jit(True)


@pytest.fixture
def volumes() -> Discriminator:
    return Discriminator.from_weights(reference.load("gan/d3_discriminator"), dims=3)


def losses(prefix: str) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(prefix): value
        for name, value in reference.load("gan/losses").items()
        if name.startswith(prefix)
    }


def arrays(discriminator: Discriminator) -> dict[str, np.ndarray]:
    return {name: value.asnumpy() for name, value in discriminator.weights.items()}


@pytest.mark.usefixtures("jit")
def test_logits_of_videos_are_the_reference(volumes: Discriminator) -> None:
    case = losses("d3.")
    video = ms.Tensor(case["input"])
    np.testing.assert_allclose(volumes(video).asnumpy(), case["eval.logits"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        volumes(video, training=True).asnumpy(), case["train.logits"], rtol=0, atol=1e-5
    )


def test_running_statistics_are_the_reference(volumes: Discriminator) -> None:
    case = losses("d3.")
    before = arrays(volumes)
    logits, statistics, _ = volumes.forward_with_tape(ms.Tensor(case["input"]))
    np.testing.assert_allclose(logits.asnumpy(), case["train.logits"], rtol=0, atol=1e-5)
    for name, expected in losses("d3.train.after.").items():
        np.testing.assert_allclose(statistics[name].asnumpy(), expected, rtol=1e-5, atol=1e-6, err_msg=name)
    assert int(statistics["main.3.num_batches_tracked"].asnumpy()) == before["main.3.num_batches_tracked"] + 1
    for name, value in volumes.weights.items():
        np.testing.assert_array_equal(value.asnumpy(), before[name], err_msg=name)
    volumes.weights.update(statistics)
    assert set(volumes.weights) == set(before)


@pytest.mark.usefixtures("jit")
def test_gradients_of_the_hinge_loss_are_the_reference(volumes: Discriminator) -> None:
    case = losses("d3.")
    reconstruction = np.einsum("bcthw,oc->bothw", case["feat"], case["last_layer"][:, :, 0, 0, 0])
    gradients: dict[str, np.ndarray] = {}
    for video, sign in ((case["input"], -1.0), (reconstruction, 1.0)):
        logits, _, tape = volumes.forward_with_tape(ms.Tensor(video.astype(np.float32)))
        values = logits.asnumpy()
        by_logits = 0.5 * sign * (1 + sign * values > 0) / values.size
        for name, value in tape.gradients([(logits, ms.Tensor(by_logits.astype(np.float32)))])[0].items():
            gradients[name] = gradients.get(name, 0) + value.asnumpy()
    assert set(gradients) == set(volumes.trainable)
    for name, expected in losses("d3.after.d.grad.").items():
        np.testing.assert_allclose(
            gradients[name], expected, rtol=0, atol=1e-4 * np.abs(expected).max(), err_msg=name
        )


@pytest.mark.parametrize(("layers", "training"), [(1, False), (2, True), (3, True), (3, False)])
def test_logits_of_images_by_an_independent_formula(layers: int, training: bool) -> None:
    rng = np.random.default_rng(layers)
    discriminator = randomised(2, layers, rng)
    images = rng.normal(size=(2, 3, 40, 48)).astype(np.float32)
    expected = patch_logits(arrays(discriminator), images.astype(np.float64), layers, training)
    np.testing.assert_allclose(
        discriminator(ms.Tensor(images), training).asnumpy(), expected, rtol=0, atol=1e-5
    )


def randomised(dims: int, layers: int, rng: np.random.Generator) -> Discriminator:
    """Narrow, with norms that are no identity."""
    fresh = arrays(Discriminator.initialise(dims, rng, layers=layers, width=4))
    for name, value in fresh.items():
        if value.ndim == 1:
            fresh[name] = (value + rng.uniform(0.0, 0.5, value.shape)).astype(np.float32)
        elif value.ndim > 1:
            fresh[name] = value * 4
    return Discriminator.from_weights(fresh, dims)


def patch_logits(w: dict[str, np.ndarray], x: np.ndarray, layers: int, training: bool) -> np.ndarray:
    x = leaky(convolve(x, w["main.0.weight"], 2) + w["main.0.bias"][:, None, None])
    for i in range(1, layers + 1):
        name = f"main.{3 * i}"
        x = convolve(x, w[f"main.{3 * i - 1}.weight"], 2 if i < layers else 1)
        mean = x.mean((0, 2, 3)) if training else w[name + ".running_mean"]
        variance = x.var((0, 2, 3)) if training else w[name + ".running_var"]
        x = (x - mean[:, None, None]) / np.sqrt(variance[:, None, None] + 1e-5)
        x = leaky(x * w[name + ".weight"][:, None, None] + w[name + ".bias"][:, None, None])
    last = f"main.{3 * layers + 2}"
    return convolve(x, w[last + ".weight"], 1) + w[last + ".bias"][:, None, None]


def convolve(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    padded: np.ndarray = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = sliding_window_view(padded, kernel.shape[2:], (2, 3))  # type: ignore[call-overload]
    windows = windows[:, :, ::stride, ::stride]
    return np.einsum("nchwij,ocij->nohw", windows, kernel)


def leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.2 * x)


def test_a_video_counts_as_its_frames() -> None:
    rng = np.random.default_rng(0)
    discriminator = randomised(2, 1, rng)
    video = rng.normal(size=(2, 3, 3, 16, 16)).astype(np.float32)
    frames = video.transpose(0, 2, 1, 3, 4).reshape(6, 3, 16, 16)
    np.testing.assert_array_equal(
        discriminator(ms.Tensor(video)).asnumpy(), discriminator(ms.Tensor(frames)).asnumpy()
    )


@pytest.mark.parametrize("dims", [2, 3])
def test_gradient_by_the_input_is_the_slope(dims: int) -> None:
    rng = np.random.default_rng(5)
    discriminator = randomised(dims, 2, rng)
    x = rng.normal(size=(2, 3, 5, 24, 24) if dims == 3 else (2, 3, 24, 24)).astype(np.float32)
    tensor = ms.Tensor(x)
    logits, _, tape = discriminator.forward_with_tape(tensor)
    weighting = rng.normal(size=logits.shape).astype(np.float32)
    _, (gradient,) = tape.gradients([(logits, ms.Tensor(weighting))], wanted=[tensor])
    # Small, since the leaky units bend.
    step = 1e-2 * gradient.asnumpy() / np.linalg.norm(gradient.asnumpy())
    values = [
        float(
            (discriminator(ms.Tensor(x + sign * step), True).asnumpy().astype(np.float64) * weighting).sum()
        )
        for sign in (1, -1)
    ]
    assert (values[0] - values[1]) / 2 == pytest.approx(float((gradient.asnumpy() * step).sum()), rel=2e-2)


@pytest.mark.parametrize(("dims", "layers"), [(2, 3), (3, 2), (3, 3), (3, 4)])
def test_fresh_weights_are_those_of_patch_gan(dims: int, layers: int) -> None:
    discriminator = Discriminator.initialise(dims, np.random.default_rng(0), layers=layers)
    weights = arrays(discriminator)
    widths = [64 * min(2**i, 8) for i in range(layers + 1)]
    assert [value.shape[0] for name, value in weights.items() if value.ndim > 1] == [*widths, 1]
    assert weights["main.2.weight"].std() == pytest.approx(0.02, rel=0.02)
    assert weights["main.3.weight"].mean() == pytest.approx(1.0, abs=0.01)
    assert set(discriminator.trainable) == {
        name for name in weights if "running" not in name and "tracked" not in name
    }
    if layers == 2:
        assert {name: value.shape for name, value in weights.items()} == {
            name: value.shape for name, value in reference.load("gan/d3_discriminator").items()
        }


def test_time_is_halved_twice() -> None:
    rng = np.random.default_rng(0)
    video = ms.Tensor(rng.normal(size=(1, 3, 9, 32, 32)).astype(np.float32))
    assert [randomised(3, layers, rng)(video).shape for layers in (1, 2, 3)] == [
        (1, 1, 5, 16, 16),
        (1, 1, 3, 8, 8),
        (1, 1, 3, 4, 4),
    ]


def refused(weights: dict[str, Any], dims: int) -> None:
    with pytest.raises(ValueError, match=f"not the convolutions of a {dims}-D discriminator"):
        Discriminator.from_weights(weights, dims)


def test_other_weights_are_refused() -> None:
    weights = arrays(randomised(2, 2, np.random.default_rng(0)))
    refused(weights, 3)
    del weights["main.5.weight"]
    refused(weights, 2)
    refused({}, 2)
