"""DPM-Solver-2 (arXiv:2206.00927) in the noise-level form of arXiv:2206.00364, with ancestral noise."""

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
from opensora.nn import Tensor


class KDPM2Ancestral(SigmaSampler):
    """Midpoint rule in log sigma towards the `down` level of an ancestral step: 2*steps - 1 evaluations.

    The midpoint is the next noise level: sigma_next is the geometric mean of sigma and sigma_next**2 / sigma.
    """

    def __init__(self, steps: int, upstream: bool) -> None:
        alphas_cumprod = train_alphas_cumprod(*(UPSTREAM_BETAS if upstream else ()))
        self.timesteps = two_stage_timesteps(steps, upstream)
        self.sigmas = sigmas_at(self.timesteps, alphas_cumprod)
        self.init_noise_sigma = float(self.sigmas[0])
        self._sigmas_next = np.append(self.sigmas[1:], 0.0)
        # As in the reference, the timestep of a midpoint is interpolated from its noise level on a log scale.
        log_table = np.log(sigmas_of(alphas_cumprod))  # (1000,)
        self.timesteps[1::2] = np.interp(np.log(self.sigmas[1::2]), log_table, np.arange(len(log_table)))
        self._start: Tensor = None

    def needs_noise(self, i: int) -> bool:
        return i % 2 == 1

    def step(self, eps: Tensor, i: int, x: Tensor, noise: Tensor = None) -> Tensor:
        if i % 2 == 0:
            self._start = x
            return x + eps * float(self._sigmas_next[i] - self.sigmas[i])
        sigma = float(self.sigmas[i - 1])
        down, up = ancestral_split(sigma, float(self.sigmas[i]))
        return self._start + eps * (down - sigma) + require_noise(noise, i) * up
