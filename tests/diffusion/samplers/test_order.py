"""Accuracy on Gaussian data, where the flow is known: x stays constant in units of its standard deviation."""

import numpy as np
import pytest

from opensora.diffusion import SAMPLERS, Sampler, make_sampler

DATA_VARIANCE = 0.5
KEPT = np.cumprod(1.0 - np.linspace(1e-4, 0.02, 1000))
SIGMAS = np.sqrt((1.0 - KEPT) / KEPT)
NOISY = ["DDPM", "EulerAncestralDiscrete", "KDPM2AncestralDiscrete"]
EXACT = sorted(set(SAMPLERS) - set(NOISY))


def deviation(sigma: float) -> float:
    """Standard deviation of noisy data at unit data scale."""
    return float(np.sqrt(DATA_VARIANCE + sigma**2))


def run(sampler: Sampler, steps_left: int = 0, count: int = 1, seed: int = 0) -> np.ndarray:
    """x over its exact value, `steps_left` evaluations before the end, from random starts."""
    rng = np.random.default_rng(seed)
    unit_scale = (
        sampler.init_noise_sigma > 1.0
    )  # x = data + sigma * noise, else the variance-preserving scale
    sigmas = np.append(np.interp(sampler.timesteps, np.arange(1000), SIGMAS), 0.0)
    scales = np.ones_like(sigmas) if unit_scale else 1.0 / np.sqrt(1.0 + sigmas**2)
    start = rng.standard_normal(count) if count > 1 else np.ones(1)
    x = start * scales[0] * deviation(sigmas[0])
    end = len(sampler.timesteps) - steps_left
    for i in range(end):
        noisy = x / scales[i]
        eps = noisy * sigmas[i] / deviation(sigmas[i]) ** 2
        x = sampler.step(eps, i, x, noise=rng.standard_normal(count) if sampler.needs_noise(i) else None)
    return x / (scales[end] * deviation(sigmas[end]))


def error(name: str, steps: int, steps_left: int = 0) -> float:
    return float(np.abs(run(make_sampler(name, steps), steps_left) - 1.0).max())


@pytest.mark.parametrize(("name", "order"), [("DPM++2M", 2), ("UniPC", 3)])
def test_order_of_convergence(name: str, order: int) -> None:
    # Without the last step, which leads to no noise at all and is of first order.
    errors = [error(name, steps, steps_left=1) for steps in (20, 40, 80, 160)]
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (rates > order - 0.1).all(), rates
    assert abs(rates[-1] - order) < 0.1, rates


@pytest.mark.parametrize("name", ["DPM++2M", "UniPC"])
def test_few_steps_beat_ddim(name: str) -> None:
    assert error(name, 20) < error("DDIM", 20) / 5


@pytest.mark.parametrize("name", EXACT)
def test_deterministic_samplers_solve_the_flow(name: str) -> None:
    # PNDM and DEIS end at timestep 0, where noise of 0.01 is left: 1e-4 of the deviation.
    assert error(name, 200) < 0.015
    assert error(name, 200) < error(name, 50)


@pytest.mark.parametrize("name", NOISY)
def test_ancestral_samplers_keep_the_distribution(name: str) -> None:
    values = run(make_sampler(name, 200), count=20000)
    assert abs(values.std() - 1.0) < 0.03
    assert abs(values.mean()) < 0.03
