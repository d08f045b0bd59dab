"""Ancestral sampling with the posterior variance (DDPM, arXiv:2006.11239, algorithm 2)."""

import numpy as np

from opensora.diffusion.samplers.base import Sampler, leading_timesteps, require_noise, train_alphas_cumprod
from opensora.diffusion.schedule import TRAIN_STEPS
from opensora.nn import Tensor


class DDPM(Sampler):
    """Adds noise at every step but the last.

    The reference clips the prediction to [-1, 1], which latents exceed.
    """

    def __init__(self, steps: int, upstream: bool) -> None:
        self.timesteps = leading_timesteps(steps)
        self.clip = upstream
        table = train_alphas_cumprod()
        now = self.timesteps.astype(int)
        before = now - TRAIN_STEPS // steps
        self._alphas_cumprod = table[now]
        self._alphas_cumprod_next = np.where(before >= 0, table[before], 1.0)

    def needs_noise(self, i: int) -> bool:
        return i < len(self.timesteps) - 1

    def step(self, eps: Tensor, i: int, x: Tensor, noise: Tensor = None) -> Tensor:
        # Cumulative products, the alpha-bar of the paper, before and after the step.
        alpha, alpha_next = float(self._alphas_cumprod[i]), float(self._alphas_cumprod_next[i])
        beta = 1.0 - alpha / alpha_next
        data = x * alpha**-0.5 - eps * (1.0 / alpha - 1.0) ** 0.5
        if self.clip:
            data = data.clip(-1.0, 1.0)
        # Posterior mean of arXiv:2006.11239, equation 7.
        mean = data * (alpha_next**0.5 * beta / (1.0 - alpha)) + x * (
            (1.0 - beta) ** 0.5 * (1.0 - alpha_next) / (1.0 - alpha)
        )
        if not self.needs_noise(i):
            return mean
        deviation = (beta * (1.0 - alpha_next) / (1.0 - alpha)) ** 0.5
        return mean + require_noise(noise, i) * deviation
