"""Recorded 10-step runs of the reference's ten samplers; the network is 0.1 * input * cos(t / 1000)."""

from collections.abc import Callable

import mindspore as ms
import numpy as np
import pytest

from opensora.diffusion import make_sampler
from tests import reference

TENSORS = reference.load("schedulers/trajectories")
RUNS = reference.read_json("schedulers/trajectories")


def keep(x: np.ndarray) -> np.ndarray:
    return x


@pytest.mark.parametrize("name", sorted(RUNS))
@pytest.mark.parametrize("array", [ms.Tensor, keep], ids=["mindspore", "numpy"])
def test_trajectory(name: str, array: Callable) -> None:
    sampler = make_sampler(name, 10, upstream=True)
    np.testing.assert_allclose(sampler.timesteps, TENSORS[f"{name}.timesteps"], rtol=1e-5, atol=1e-5)
    assert sampler.init_noise_sigma == pytest.approx(RUNS[name]["init_noise_sigma"], rel=1e-5)

    noises = TENSORS.get(f"{name}.noises", ())
    x = array(TENSORS["x_T"]) * sampler.init_noise_sigma
    for i, t in enumerate(sampler.timesteps):
        eps = 0.1 * sampler.scale_model_input(x, i) * float(np.cos(t / 1000))
        x = sampler.step(eps, i, x, noise=array(noises[i]) if sampler.needs_noise(i) else None)
        np.testing.assert_allclose(
            np.asarray(x), TENSORS[f"{name}.xs"][i + 1], rtol=1e-5, atol=1e-5, err_msg=f"step {i}"
        )


@pytest.mark.parametrize("name", sorted(RUNS))
def test_noise_is_needed_only_where_upstream_draws_it(name: str) -> None:
    sampler = make_sampler(name, 10, upstream=True)
    for i, drawn in enumerate(RUNS[name]["noises_drawn_per_step"]):
        assert sampler.needs_noise(i) <= bool(drawn)
