"""Heun's second-order method (arXiv:2206.00364, algorithm 1 without churn)."""

from typing import Any

import numpy as np

from opensora.diffusion.samplers.base import SigmaSampler, even_timesteps, sigmas_at, train_alphas_cumprod

# The betas of the reference's bare constructor, which are not those that the model was trained with.
UPSTREAM_BETAS = (0.00085, 0.012)


def two_stage_timesteps(steps: int, upstream: bool) -> np.ndarray:
    """Evenly spaced; all but the first are evaluated twice, as a step's end and as the next one's start: (2 steps - 1,)."""
    coarse = even_timesteps(steps, upstream)
    return np.append(coarse[:1], coarse[1:].repeat(2))


class Heun(SigmaSampler):
    """Two evaluations a step, one for the last: `2 steps - 1` in all."""

    def __init__(self, steps: int, upstream: bool) -> None:
        self.timesteps = two_stage_timesteps(steps, upstream)
        self.sigmas = sigmas_at(
            self.timesteps, train_alphas_cumprod(*UPSTREAM_BETAS) if upstream else train_alphas_cumprod()
        )
        self.init_noise_sigma = float(self.sigmas[0])
        self._sigmas_next = np.append(self.sigmas[1:], 0.0)
        self._start: Any = None
        self._slope: Any = None

    def step(self, eps: Any, i: int, x: Any, noise: Any = None) -> Any:
        if i % 2 == 0:
            self._start, self._slope = x, eps
            return x + eps * float(self._sigmas_next[i] - self.sigmas[i])
        return self._start + (self._slope + eps) * float(0.5 * (self.sigmas[i] - self.sigmas[i - 1]))
