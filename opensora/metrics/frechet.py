"""The Frechet distance of two Gaussians (Dowson and Landau, 1982).

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))

If C = F^T F, the square roots of the eigenvalues of C1 C2 are the singular values of F1 F2^T. So the distance
needs only factors F, not the root of a product that rounding may make indefinite. Centred samples are such a
factor, few or many.
"""

import numpy as np


def frechet_distance(
    mean: np.ndarray, covariance: np.ndarray, other_mean: np.ndarray, other_covariance: np.ndarray
) -> float:
    """Squared distance of Gaussians with means (D,) and positive semi-definite covariances (D, D)."""
    return _distance(mean - other_mean, _factor(covariance), _factor(other_covariance))


def frechet_distance_of_samples(samples: np.ndarray, other: np.ndarray) -> float:
    """Squared distance of the Gaussians fitted to samples (N, D) and (M, D), with covariances over N - 1.

    Raises ValueError for fewer than two samples.
    """
    if min(len(samples), len(other)) < 2:
        raise ValueError(
            f"a Frechet distance needs two samples on each side, there are {len(samples)} and {len(other)}: "
            "add videos"
        )
    factors, means = [], []
    for values in (samples.astype(np.float64), other.astype(np.float64)):
        means.append(values.mean(0))
        factors.append((values - means[-1]) / np.sqrt(len(values) - 1))
    return _distance(means[0] - means[1], factors[0], factors[1])


def _factor(covariance: np.ndarray) -> np.ndarray:
    """F with F^T F = covariance, from its eigenvectors; negative eigenvalues are rounding errors."""
    values, vectors = np.linalg.eigh(covariance.astype(np.float64))
    return np.sqrt(np.maximum(values, 0))[:, None] * vectors.T


def _distance(step: np.ndarray, factor: np.ndarray, other: np.ndarray) -> float:
    """Squared distance from the means' difference (D,) and the covariances' factors (N, D) and (M, D)."""
    overlap = np.linalg.svd(factor @ other.T, compute_uv=False).sum()
    traces = np.sum(factor**2) + np.sum(other**2)
    return max(0.0, float(step @ step + traces - 2 * overlap))
