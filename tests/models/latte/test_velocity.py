"""LatteT2V that predicts the velocity (arXiv:2202.00512) and returns the noise."""

from dataclasses import replace
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from opensora.diffusion.schedule import Schedule, signal_and_noise
from opensora.engine import ENGINES, choose_training_engine, open_engine
from opensora.models import LatteT2V
from opensora.models.latte.config import LatteConfig, weight_shapes
from opensora.weights import WeightsError
from tests.models.latte.test_model import TINY

VELOCITY = replace(TINY, prediction_type="v_prediction")
TIMESTEP = np.array([20, 900])
LEVELS = signal_and_noise(TIMESTEP).reshape(2, 2, 1, 1, 1, 1)
SIGNAL, NOISE = LEVELS[:, 0], LEVELS[:, 1]


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = weight_shapes(TINY)
    return {name: (0.3 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}


def inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latents, noise, and embeddings of a text."""
    rng = np.random.default_rng(1)
    latents, noise = rng.standard_normal((2, 2, 4, 3, 4, 4), np.float32)
    return latents, noise, rng.standard_normal((2, 5, 6), np.float32)


def test_levels_are_those_of_the_schedule_and_interpolated_between() -> None:
    alphas = Schedule().alphas_cumprod
    np.testing.assert_allclose(signal_and_noise(TIMESTEP)[:, 0], np.sqrt(alphas[TIMESTEP]), rtol=1e-6)
    np.testing.assert_allclose(signal_and_noise(TIMESTEP)[:, 1], np.sqrt(1 - alphas[TIMESTEP]), rtol=1e-6)
    between = signal_and_noise(np.array([500.5]))[0, 0]
    assert alphas[500] > between**2 > alphas[501]
    np.testing.assert_allclose(between**4, alphas[500] * alphas[501], rtol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_noise_is_as_right_as_the_velocity(weights: dict[str, np.ndarray], engine: str) -> None:
    latents, noise, text = inputs()
    noised = (SIGNAL * latents + NOISE * noise).astype(np.float32)
    opened = open_engine(engine)

    def output(config: LatteConfig) -> np.ndarray:
        model = LatteT2V(config, opened.weights(weights), opened)
        return np.asarray(model(opened.tensor(noised), TIMESTEP, opened.tensor(text)).asnumpy())

    predicted, found = output(TINY), output(VELOCITY)
    error = predicted[:, :4] - (SIGNAL * noise - NOISE * latents)
    np.testing.assert_allclose(found[:, :4] - noise, SIGNAL * error, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found[:, 4:], predicted[:, 4:])


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_are_those_of_the_velocity(weights: dict[str, np.ndarray], engine: str) -> None:
    latents, _, text = (ms.Tensor(value) for value in inputs())
    by_output = np.random.default_rng(2).standard_normal((2, 8, 3, 4, 4), np.float32)
    by_velocity = by_output * np.concatenate((SIGNAL.repeat(4, 1), np.ones_like(SIGNAL).repeat(4, 1)), 1)

    def gradients(config: LatteConfig, by: np.ndarray) -> dict[str, np.ndarray]:
        opened = choose_training_engine(engine)
        model = LatteT2V(config, opened.weights(weights), opened)
        output, tape = model.forward_with_tape(latents, TIMESTEP, text)
        return {name: value.asnumpy() for name, value in tape.gradients([(output, ms.Tensor(by))])[0].items()}

    expected = gradients(TINY, by_velocity.astype(np.float32))
    found = gradients(VELOCITY, by_output)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_prediction_type_is_kept_and_must_agree(weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    assert "prediction_type" not in TINY.to_dict()
    assert LatteConfig.from_dict(VELOCITY.to_dict()) == VELOCITY
    LatteT2V(VELOCITY, open_engine().weights(weights)).save_pretrained(tmp_path)
    assert LatteT2V.from_pretrained(tmp_path).config == VELOCITY
    with pytest.raises(WeightsError, match="has the prediction_type 'v_prediction', but the model's is eps"):
        LatteT2V(TINY, {}).load_weights(tmp_path)
    with pytest.raises(ValueError, match="prediction_type"):
        LatteConfig.from_dict({**TINY.to_dict(), "prediction_type": "sample"})
