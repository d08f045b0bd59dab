import numpy as np
import pytest

from opensora.metrics.frechet import frechet_distance, frechet_distance_of_samples


def test_diagonal_covariances_have_a_closed_form() -> None:
    """For independent coordinates: the sum of (difference of means)^2 + (difference of deviations)^2."""
    rng = np.random.default_rng(0)
    means, deviations = rng.normal(size=(2, 7)), rng.uniform(0, 3, (2, 7))
    deviations[0, 2] = deviations[1, 4] = 0
    expected = np.sum((means[0] - means[1]) ** 2 + (deviations[0] - deviations[1]) ** 2)
    assert frechet_distance(
        means[0], np.diag(deviations[0] ** 2), means[1], np.diag(deviations[1] ** 2)
    ) == pytest.approx(expected, rel=1e-12)


def test_covariances_that_commute_have_a_closed_form() -> None:
    rng = np.random.default_rng(1)
    axes, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    deviations = rng.uniform(0.1, 3, (2, 6))
    covariances = [axes @ np.diag(values**2) @ axes.T for values in deviations]
    mean = np.zeros(6)
    expected = np.sum((deviations[0] - deviations[1]) ** 2)
    assert frechet_distance(mean, covariances[0], mean, covariances[1]) == pytest.approx(expected, rel=1e-10)


def test_value_by_scipy_s_matrix_root() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6))
    y = rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6)) + 0.3
    # d @ d + trace(c1 + c2 - 2 * scipy.linalg.sqrtm(c1 @ c2)) with scipy 1.17.1.
    assert frechet_distance_of_samples(x, y) == pytest.approx(22.54366258659118, rel=1e-10)
    moments = (x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T))
    assert frechet_distance(*moments) == pytest.approx(22.54366258659118, rel=1e-10)


def test_few_samples_of_many_features() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, 400)), rng.normal(size=(3, 400))
    # Two samples have a covariance with a single axis, so the root of the product has one eigenvalue.
    axis = (x[0] - x[1]) / np.sqrt(2)
    covariance = np.cov(y.T)
    expected = (
        np.sum((x.mean(0) - y.mean(0)) ** 2)
        + axis @ axis
        + np.trace(covariance)
        - 2 * np.sqrt(axis @ covariance @ axis)
    )
    assert frechet_distance_of_samples(x, y) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(x.mean(0), np.cov(x.T), y.mean(0), covariance) == pytest.approx(
        expected, rel=1e-5
    )


def test_properties() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(5, 8)).astype(np.float32), rng.normal(size=(9, 8)).astype(np.float32)
    assert frechet_distance_of_samples(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance_of_samples(x, y) == pytest.approx(frechet_distance_of_samples(y, x), rel=1e-12)
    assert frechet_distance_of_samples(x, x + 2) == pytest.approx(4 * 8, rel=1e-6)


def test_a_single_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="there are 1 and 4: add videos"):
        frechet_distance_of_samples(np.zeros((1, 3)), np.zeros((4, 3)))
