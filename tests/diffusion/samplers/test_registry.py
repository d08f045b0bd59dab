import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from opensora.diffusion import SAMPLERS, Sampler, make_sampler

NOISY = {"DDPM", "EulerAncestralDiscrete", "KDPM2AncestralDiscrete"}


def sample(sampler: Sampler, seed: int = 0, shape: tuple[int, ...] = (3,)) -> np.ndarray:
    """Sample with the exact noise prediction for standard normal data: scaled input times noise level."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * sampler.init_noise_sigma
    kept = np.cumprod(1.0 - np.linspace(1e-4, 0.02, 1000))
    for i, t in enumerate(sampler.timesteps):
        eps = sampler.scale_model_input(x, i) * np.sqrt(1.0 - np.interp(t, np.arange(1000), kept))
        x = sampler.step(eps, i, x, noise=rng.standard_normal(shape) if sampler.needs_noise(i) else None)
    return x


def test_names() -> None:
    upstream = {
        "DDIM",
        "EulerDiscrete",
        "DDPM",
        "DPMSolverMultistep",
        "DPMSolverSinglestep",
        "PNDM",
        "HeunDiscrete",
        "EulerAncestralDiscrete",
    }
    assert set(SAMPLERS) == upstream | {"DEISMultistep", "KDPM2AncestralDiscrete", "DPM++2M", "UniPC"}


def test_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match=r"'PNMD' is unknown: did you mean 'PNDM'\? choose one of DDIM, "):
        make_sampler("PNMD", 10)


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_step_counts(steps: int) -> None:
    with pytest.raises(ValueError, match=f"{steps} sampling steps"):
        make_sampler("DDIM", steps)


@pytest.mark.parametrize("upstream", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7, 15, 150, 999, 1000])
@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_any_step_count_works(name: str, steps: int, upstream: bool) -> None:
    sampler = make_sampler(name, steps, upstream)
    timesteps = sampler.timesteps
    assert timesteps.dtype == np.float64
    assert (timesteps >= 0).all() and (timesteps <= 999).all()
    assert (np.diff(timesteps) <= 1e-3).all()
    evaluations = {
        "PNDM": steps + 3 * min(3, steps - 1),
        "HeunDiscrete": 2 * steps - 1,
        "KDPM2AncestralDiscrete": 2 * steps - 1,
    }
    assert len(timesteps) == evaluations.get(name, steps)
    assert np.isfinite(sample(sampler)).all()


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_sampler_can_be_used_again(name: str) -> None:
    sampler = make_sampler(name, 6)
    first = sample(sampler)
    sample(sampler, seed=1)
    np.testing.assert_array_equal(sample(sampler), first)
    np.testing.assert_array_equal(sample(make_sampler(name, 6)), first)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_noise_that_is_needed_must_be_given(name: str) -> None:
    sampler = make_sampler(name, 4)
    needed = [i for i in range(len(sampler.timesteps)) if sampler.needs_noise(i)]
    assert bool(needed) == (name in NOISY)
    for i in needed:
        sampler.step(np.ones(3), 0, np.ones(3), noise=np.ones(3))
        with pytest.raises(ValueError, match=f"step {i} of this sampler adds noise"):
            sampler.step(np.ones(3), i, np.ones(3))


@pytest.mark.parametrize("name", ["DDIM", "DDPM"])
def test_only_upstream_clips_the_predicted_data(name: str) -> None:
    big, zero = np.full(3, 5.0), np.zeros(3)
    clipped, free = (make_sampler(name, 10, upstream).step(zero, 9, big) for upstream in (True, False))
    np.testing.assert_allclose(clipped, 1.0)
    np.testing.assert_allclose(free, 5.0 / np.sqrt(1.0 - 1e-4))


@pytest.mark.parametrize("name", ["HeunDiscrete", "KDPM2AncestralDiscrete"])
def test_trained_schedule_by_default(name: str) -> None:
    assert make_sampler(name, 10).init_noise_sigma == pytest.approx(157.407, rel=1e-5)
    assert make_sampler(name, 10, upstream=True).init_noise_sigma == pytest.approx(25.1461, rel=1e-5)


def test_samplers_load_without_the_framework() -> None:
    code = (
        "import sys; from opensora.diffusion import make_sampler; make_sampler('PNDM', 5); "
        "sys.exit('mindspore' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False).returncode
        == 0
    )
