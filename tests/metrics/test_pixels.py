import numpy as np
import pytest

from opensora.metrics.pixels import psnr, ssim


def pair(seed: int, shape: tuple[int, ...], noise: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture whose neighbours are somewhat alike, and the same with noise: uint8."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 256, shape, np.uint8)
    a = ((a.astype(np.int64) + np.roll(a, 1, 0) + np.roll(a, 1, 1) + np.roll(a, 2, 0)) // 4).astype(np.uint8)
    b = np.clip(a.astype(np.int64) + rng.integers(-noise, noise + 1, shape), 0, 255).astype(np.uint8)
    return a, b


# scikit-image 0.26.0: peak_signal_noise_ratio(a, b, data_range=255) and structural_similarity(a, b,
# data_range=255, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False).
CASES = [
    (0, (32, 48, 3), 4, 39.83065075692286, 0.9971061338222849),
    (1, (11, 11, 3), 60, 17.37253993422431, 0.6846777127109975),
    (2, (40, 17, 3), 25, 24.790614766620664, 0.9154203368293675),
]


@pytest.mark.parametrize(("seed", "shape", "noise", "ratio", "similarity"), CASES)
def test_values_of_scikit_image(
    seed: int, shape: tuple[int, ...], noise: int, ratio: float, similarity: float
) -> None:
    a, b = pair(seed, shape, noise)
    assert psnr(a, b) == pytest.approx(ratio, rel=1e-12)
    assert ssim(a, b) == pytest.approx(similarity, rel=1e-10)
    assert ssim(b, a) == pytest.approx(ssim(a, b), rel=1e-12)
    assert psnr(a / 255, b / 255, data_range=1) == pytest.approx(ratio, rel=1e-9)
    assert ssim(a / 255, b / 255, data_range=1) == pytest.approx(similarity, rel=1e-9)


def test_equal_pictures() -> None:
    a, _ = pair(0, (12, 12, 3), 1)
    assert psnr(a, a) == 100 and ssim(a, a) == pytest.approx(1, abs=1e-12)


def test_one_level_of_difference_everywhere() -> None:
    a = np.full((12, 12, 3), 100, np.uint8)
    assert psnr(a, a + 1) == pytest.approx(20 * np.log10(255))
