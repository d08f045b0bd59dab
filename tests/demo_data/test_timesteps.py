"""Where quality is lost: levels of clips whose restoration is known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from opensora.demo_data.timesteps import by_timestep, sharpness_of, timestep_table
from opensora.diffusion.samplers.base import sigmas_of, train_alphas_cumprod
from opensora.diffusion.samplers.ddim import PartialDDIM
from tests.demo_data.demo_cache import make_cache


def test_a_level_compares_with_the_clips(tmp_path: Path) -> None:
    seeds, encoded = [], []

    def restore(video: np.ndarray, caption: str) -> Callable[[int, int], np.ndarray]:
        encoded.append(caption)

        def denoise(timestep: int, seed: int) -> np.ndarray:
            seeds.append((timestep, seed))
            return np.repeat(video[:1], len(video), axis=0) if timestep == 500 else video

        return denoise

    levels = by_timestep(
        make_cache(tmp_path),
        lambda video: video // 2,
        restore,
        (5, 32),
        clips=3,
        seed=4,
        timesteps=(100, 500),
    )
    assert seeds == [(100, 4), (500, 4), (100, 5), (500, 5), (100, 6), (500, 6)]
    assert len(encoded) == 3 and all(" on a" in caption for caption in encoded)
    half, same, still = levels
    assert (half.timestep, same.timestep, still.timestep) == (None, 100, 500)
    assert same.psnr == same.psnr_on_subject == 100 and same.sharpness == same.motion == 1
    assert half.psnr < 15 and half.sharpness == pytest.approx(0.5, abs=0.02)
    assert still.motion == 0 and still.psnr < 100
    assert timestep_table(levels).splitlines()[2].split() == [
        "t",
        "=",
        "100",
        "100.0",
        "100.0",
        "1.00",
        "1.00",
    ]


def test_sharpness_is_the_mean_difference_of_neighbours() -> None:
    stripes = np.zeros((1, 4, 4, 3), np.uint8)
    stripes[:, :, ::2] = 10
    assert sharpness_of(stripes) == 10


def test_partial_ddim_returns_to_the_data_of_an_exact_network() -> None:
    data, noise = np.random.default_rng(0).standard_normal((2, 1, 4, 2, 3, 3))
    sampler = PartialDDIM(300, 9)
    x = sampler.noised(data, noise)
    alphas = train_alphas_cumprod()
    np.testing.assert_allclose(x, np.sqrt(alphas[300]) * data + np.sqrt(1 - alphas[300]) * noise)
    assert sampler.timesteps[0] == 300 and len(sampler.timesteps) == 9 and sampler.timesteps[-1] > 0
    for i, timestep in enumerate(sampler.timesteps):
        sigma = float(np.interp(timestep, np.arange(1000), sigmas_of(alphas)))
        np.testing.assert_allclose(x, (data + sigma * noise) / np.sqrt(1 + sigma**2))
        x = sampler.step(noise, i, x)
    np.testing.assert_allclose(x, data, atol=1e-12)
