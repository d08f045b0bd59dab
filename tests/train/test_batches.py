import numpy as np
import pytest

from opensora.train.batches import logit_normal, sampling_of, spread_shares, uniform
from opensora.train.denoiser_options import DiffusionOptions


def test_shares_are_one_from_each_part() -> None:
    shares = spread_shares(8, np.random.default_rng(0))
    assert sorted((shares * 8).astype(int)) == list(range(8))


def test_uniform_timesteps_are_the_shares() -> None:
    shares = np.array([0.0, 0.25, 0.999])
    assert (sampling_of(DiffusionOptions())(shares) == shares).all() and sampling_of(
        DiffusionOptions()
    ) is uniform


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (-0.5, 0.8)])
def test_logits_of_timesteps_are_normal(mean: float, deviation: float) -> None:
    options = DiffusionOptions(timestep_sampling="logit_normal", logit_mean=mean, logit_std=deviation)
    timesteps = sampling_of(options)((np.arange(10000) + 0.5) / 10000)
    logits = np.log(timesteps / (1 - timesteps))
    assert (np.diff(timesteps) > 0).all()
    np.testing.assert_allclose((logits.mean(), logits.std()), (mean, deviation), rtol=0, atol=2e-3)
    # One deviation to both sides holds 68.27 %.
    assert abs(np.mean(np.abs(logits - mean) < deviation) - 0.6827) < 1e-3


def test_timesteps_stay_below_one() -> None:
    ends = logit_normal(0.0, 50.0)(np.array([0.0, np.nextafter(1.0, 0.0)]))
    assert (ends >= 0).all() and (ends < 1).all()


def test_options_without_effect_and_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="no effect on uniform timesteps: add --timestep_sampling"):
        DiffusionOptions(logit_mean=0.5)
    with pytest.raises(ValueError, match="logit_std 0 is too small"):
        DiffusionOptions(timestep_sampling="logit_normal", logit_std=0)
    with pytest.raises(ValueError, match="timestep_sampling 'cosine' is unknown"):
        DiffusionOptions(timestep_sampling="cosine")  # type: ignore[arg-type]
