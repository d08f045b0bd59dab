"""PSNR and SSIM of two pictures: scikit-image's numbers with the settings of the reference's evaluation."""

import numpy as np

HIGHEST_PSNR = 100.0
RADIUS, SIGMA = 5, 1.5  # of SSIM's Gaussian window, 11 x 11
WINDOW = 2 * RADIUS + 1


def psnr(image: np.ndarray, target: np.ndarray, data_range: float = 255.0) -> float:
    """Peak signal-to-noise ratio in dB. Equal pictures have 100, as in the reference, not infinity."""
    error = np.mean(np.square(image.astype(np.float64) - target.astype(np.float64))) / data_range**2
    return HIGHEST_PSNR if error < 1e-10 else float(-10 * np.log10(error))


def ssim(image: np.ndarray, target: np.ndarray, data_range: float = 255.0) -> float:
    """Structural similarity (Wang et al., 2004) of pictures (H, W, C), at least 11x11; mean of the channels.

    scikit-image's `structural_similarity` with gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    and channel_axis=-1. Only windows that lie inside the picture count.
    """
    assert min(image.shape[:2]) >= WINDOW
    x, y = image.astype(np.float64) / data_range, target.astype(np.float64) / data_range
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float(np.mean(similarity / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))))


def _blur(x: np.ndarray) -> np.ndarray:
    """Gaussian mean at every place where the window fits: (H, W, C) -> (H-10, W-10, C)."""
    offsets = np.arange(-RADIUS, RADIUS + 1)
    weights = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    weights /= weights.sum()
    height, width = x.shape[0] - 2 * RADIUS, x.shape[1] - 2 * RADIUS
    rows = sum(weight * x[i : i + height] for i, weight in enumerate(weights))
    return np.asarray(sum(weight * rows[:, i : i + width] for i, weight in enumerate(weights)))
