"""DPM-Solver-2 (arXiv:2206.00927) in the noise-level form of arXiv:2206.00364, with ancestral noise."""

from typing import Any

import numpy as np

from opensora.diffusion.samplers.base import (
    SigmaSampler,
    require_noise,
    sigmas_at,
    sigmas_of,
    train_alphas_cumprod,
)
from opensora.diffusion.samplers.euler import ancestral_split
from opensora.diffusion.samplers.heun import UPSTREAM_BETAS, two_stage_timesteps


class KDPM2Ancestral(SigmaSampler):
    """Midpoint rule in log sigma towards the `down` level of an ancestral step: `2 steps - 1` evaluations.

    The geometric mean of sigma and sigma_next**2 / sigma is sigma_next itself, so the midpoint lies at the next noise level.
    """

    def __init__(self, steps: int, upstream: bool) -> None:
        kept = train_alphas_cumprod(*UPSTREAM_BETAS) if upstream else train_alphas_cumprod()
        self.timesteps = two_stage_timesteps(steps, upstream)
        self.sigmas = sigmas_at(self.timesteps, kept)
        self.init_noise_sigma = float(self.sigmas[0])
        self._sigmas_next = np.append(self.sigmas[1:], 0.0)
        # As in the reference: the midpoint's timestep interpolates the training timesteps at its log noise level.
        self.timesteps[1::2] = np.interp(
            np.log(self.sigmas[1::2]), np.log(sigmas_of(kept)), np.arange(len(kept))
        )
        self._start: Any = None

    def needs_noise(self, i: int) -> bool:
        return i % 2 == 1

    def step(self, eps: Any, i: int, x: Any, noise: Any = None) -> Any:
        if i % 2 == 0:
            self._start = x
            return x + eps * float(self._sigmas_next[i] - self.sigmas[i])
        sigma = float(self.sigmas[i - 1])
        down, up = ancestral_split(sigma, float(self.sigmas[i]))
        return self._start + eps * (down - sigma) + require_noise(noise, i) * up
