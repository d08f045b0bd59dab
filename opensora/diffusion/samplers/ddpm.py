"""Ancestral sampling of DDPM (arXiv:2006.11239, algorithm 2) on a subset of the timesteps, with the posterior's variance."""

from typing import Any

import numpy as np

from opensora.diffusion.samplers.base import Sampler, leading_timesteps, require_noise, train_alphas_cumprod
from opensora.diffusion.schedule import TRAIN_STEPS


class DDPM(Sampler):
    """Adds noise at every step but the last. The reference clips the prediction to [-1, 1], which latents exceed."""

    def __init__(self, steps: int, upstream: bool) -> None:
        self.timesteps = leading_timesteps(steps)
        self.clip = upstream
        table = train_alphas_cumprod()
        now = self.timesteps.astype(int)
        before = now - TRAIN_STEPS // steps
        self._kept = table[now]
        self._kept_next = np.where(before >= 0, table[before], 1.0)

    def needs_noise(self, i: int) -> bool:
        return i < len(self.timesteps) - 1

    def step(self, eps: Any, i: int, x: Any, noise: Any = None) -> Any:
        kept, kept_next = float(self._kept[i]), float(self._kept_next[i])
        beta = 1.0 - kept / kept_next
        data = x * kept**-0.5 - eps * (1.0 / kept - 1.0) ** 0.5
        if self.clip:
            data = data.clip(-1.0, 1.0)
        # Posterior mean of arXiv:2006.11239, equation 7.
        mean = data * (kept_next**0.5 * beta / (1.0 - kept)) + x * (
            (1.0 - beta) ** 0.5 * (1.0 - kept_next) / (1.0 - kept)
        )
        if not self.needs_noise(i):
            return mean
        deviation = (beta * (1.0 - kept_next) / (1.0 - kept)) ** 0.5
        return mean + require_noise(noise, i) * deviation
