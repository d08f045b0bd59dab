"""Fresh weights are float32, in their range, and the generator's own."""

from collections.abc import Callable

import numpy as np
import pytest

from opensora.models.initial import mean_kernel, normal, uniform, xavier


@pytest.mark.parametrize("bound", [1e-3, 1.0, 40.0])
def test_uniform_values_fill_their_range(bound: float) -> None:
    values = uniform(np.random.default_rng(1), (200, 100), bound)
    assert values.dtype == np.float32 and values.shape == (200, 100)
    assert -bound <= values.min() < -0.99 * bound and 0.99 * bound < values.max() <= bound
    np.testing.assert_allclose([values.mean() / bound, values.var() / bound**2], [0.0, 1 / 3], atol=0.02)


def test_normal_values_have_the_deviation() -> None:
    values = normal(np.random.default_rng(1), (200, 100), 0.02)
    assert values.dtype == np.float32 and values.shape == (200, 100)
    np.testing.assert_allclose([values.mean() / 0.02, values.std() / 0.02], [0.0, 1.0], atol=0.03)


@pytest.mark.parametrize("draw", [uniform, normal])
def test_a_seed_gives_the_same_values(draw: Callable[..., np.ndarray]) -> None:
    first, again, other = (draw(np.random.default_rng(seed), (3, 4), 1.0) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_xavier_has_the_variance_of_its_fans() -> None:
    values = xavier(np.random.default_rng(1), (60, 20, 3, 3))  # fan in 180, fan out 60
    np.testing.assert_allclose(values.var(), 2 / (180 + 60), rtol=0.03)


def test_a_mean_kernel_averages() -> None:
    kernel = mean_kernel(np.random.default_rng(1), (5, 1, 2, 2))
    patch = np.array([[1.0, 2.0], [3.0, 6.0]])
    np.testing.assert_allclose((kernel * patch).sum((1, 2, 3)), 3.0)
