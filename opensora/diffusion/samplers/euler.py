"""Euler's method (arXiv:2206.00364, algorithm 1 without churn), and its ancestral form."""

import numpy as np

from opensora.diffusion.samplers.base import (
    SigmaSampler,
    even_timesteps,
    require_noise,
    sigmas_at,
    train_alphas_cumprod,
)
from opensora.nn import Tensor


class Euler(SigmaSampler):
    """First order, deterministic: the reference draws noise for its churn, but the default churn is zero."""

    def __init__(self, steps: int, upstream: bool) -> None:
        self.timesteps = even_timesteps(steps, upstream)
        self.sigmas = sigmas_at(self.timesteps, train_alphas_cumprod())
        self.init_noise_sigma = float(self.sigmas[0])
        self._sigmas_next = np.append(self.sigmas[1:], 0.0)

    def step(self, eps: Tensor, i: int, x: Tensor, noise: Tensor = None) -> Tensor:
        return x + eps * float(self._sigmas_next[i] - self.sigmas[i])


def ancestral_split(sigma: float, sigma_next: float) -> tuple[float, float]:
    """(down, up): step to noise level `down`, then add noise of level `up`, to arrive at sigma_next.

    `up` is the standard deviation of the posterior.
    """
    return sigma_next**2 / sigma, float(np.sqrt(sigma_next**2 * (sigma**2 - sigma_next**2)) / sigma)


class EulerAncestral(Euler):
    """Euler steps below the next noise level; the difference is added as fresh noise."""

    def needs_noise(self, i: int) -> bool:
        return i < len(self.timesteps) - 1

    def step(self, eps: Tensor, i: int, x: Tensor, noise: Tensor = None) -> Tensor:
        sigma = float(self.sigmas[i])
        down, up = ancestral_split(sigma, float(self._sigmas_next[i]))
        x = x + eps * (down - sigma)
        return x + require_noise(noise, i) * up if self.needs_noise(i) else x
