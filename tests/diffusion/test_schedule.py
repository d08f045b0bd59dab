import numpy as np
import pytest

from opensora.diffusion.schedule import Schedule, space_timesteps
from tests import reference

TENSORS = reference.load("diffusion/gaussian")
TABLES = sorted(key[len("table.") : -len(".f64")] for key in TENSORS if key.startswith("table."))
RESPACINGS = sorted(
    key[len("respaced.") : -len(".betas.f64")] for key in TENSORS if key.startswith("respaced.")
)


@pytest.mark.parametrize("name", TABLES)
def test_table(name: str) -> None:
    np.testing.assert_allclose(
        getattr(Schedule(), name), TENSORS[f"table.{name}.f64"], rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("respacing", RESPACINGS)
def test_respaced_betas(respacing: str) -> None:
    np.testing.assert_allclose(
        Schedule(respacing).betas, TENSORS[f"respaced.{respacing}.betas.f64"], rtol=1e-12
    )


@pytest.mark.parametrize("respacing", RESPACINGS)
def test_kept_timesteps(respacing: str) -> None:
    kept = reference.read_json("diffusion/gaussian")["space_timesteps"][respacing]
    np.testing.assert_array_equal(Schedule(respacing).timestep_map, kept)


def test_everything_is_kept_by_default() -> None:
    schedule = Schedule()
    assert schedule.num_timesteps == 1000
    np.testing.assert_array_equal(schedule.timestep_map, np.arange(1000))


def test_one_timestep_has_finite_tables() -> None:
    schedule = Schedule("1")
    assert schedule.num_timesteps == 1
    assert np.isfinite(schedule.posterior_log_variance_clipped).all()


@pytest.mark.parametrize("respacing", ["ddim999", "ddim", "10,,5", "ten", "0", "600,600", "-5"])
def test_impossible_respacing(respacing: str) -> None:
    with pytest.raises(ValueError, match="respacing"):
        space_timesteps(respacing)
