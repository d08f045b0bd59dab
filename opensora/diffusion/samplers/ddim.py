"""DDIM (arXiv:2010.02502) without noise."""

import numpy as np

from opensora.diffusion.samplers.base import (
    Sampler,
    alpha_of,
    leading_timesteps,
    sigmas_at,
    sigmas_of,
    train_alphas_cumprod,
    transfer,
)
from opensora.diffusion.schedule import TRAIN_STEPS
from opensora.nn import Tensor


class DDIM(Sampler):
    """Deterministic, first order. The reference clips the predicted data to [-1, 1], which latents exceed."""

    def __init__(self, steps: int, upstream: bool) -> None:
        self.timesteps = leading_timesteps(steps)
        self.clip = upstream
        table = sigmas_of(train_alphas_cumprod())
        now = self.timesteps.astype(int)
        before = now - TRAIN_STEPS // steps
        self._moves = [
            (float(table[t]), float(table[p]) if p >= 0 else 0.0) for t, p in zip(now, before, strict=True)
        ]

    def step(self, eps: Tensor, i: int, x: Tensor, noise: Tensor = None) -> Tensor:
        sigma, sigma_next = self._moves[i]
        if not self.clip:
            return transfer(x, eps, sigma, sigma_next)
        data = (x * (1.0 / alpha_of(sigma)) - eps * sigma).clip(-1.0, 1.0)
        return (data + eps * sigma_next) * alpha_of(sigma_next)


class PartialDDIM(Sampler):
    """DDIM from data that was noised to a timestep, `start`, in even steps down to 0.

    x = sampler.noised(data, noise), then as with any sampler.
    """

    def __init__(self, start: float, steps: int) -> None:
        self.timesteps = np.linspace(start, 0, steps + 1)[:-1]
        self._sigmas = [*sigmas_at(self.timesteps, train_alphas_cumprod()).tolist(), 0.0]

    def noised(self, data: Tensor, noise: Tensor) -> Tensor:
        """Data at unit scale with the noise of timestep `start`."""
        return (data + noise * self._sigmas[0]) * alpha_of(self._sigmas[0])

    def step(self, eps: Tensor, i: int, x: Tensor, noise: Tensor = None) -> Tensor:
        return transfer(x, eps, self._sigmas[i], self._sigmas[i + 1])
