"""Heun's second-order method (arXiv:2206.00364, algorithm 1 without churn)."""

import numpy as np

from opensora.diffusion.samplers.base import SigmaSampler, even_timesteps, sigmas_at, train_alphas_cumprod
from opensora.nn import Tensor

# The betas of the reference's bare constructor, which are not those that the model was trained with.
UPSTREAM_BETAS = (0.00085, 0.012)


def two_stage_timesteps(steps: int, upstream: bool) -> np.ndarray:
    """Evenly spaced: (2*steps - 1,).

    All but the first occur twice, as end of a step and start of the next.
    """
    coarse = even_timesteps(steps, upstream)
    return np.append(coarse[:1], coarse[1:].repeat(2))


class Heun(SigmaSampler):
    """Two evaluations per step, one for the last step: 2*steps - 1."""

    def __init__(self, steps: int, upstream: bool) -> None:
        self.timesteps = two_stage_timesteps(steps, upstream)
        betas = UPSTREAM_BETAS if upstream else ()
        self.sigmas = sigmas_at(self.timesteps, train_alphas_cumprod(*betas))
        self.init_noise_sigma = float(self.sigmas[0])
        self._sigmas_next = np.append(self.sigmas[1:], 0.0)
        self._start: Tensor = None
        self._slope: Tensor = None

    def step(self, eps: Tensor, i: int, x: Tensor, noise: Tensor = None) -> Tensor:
        if i % 2 == 0:
            self._start, self._slope = x, eps
            return x + eps * float(self._sigmas_next[i] - self.sigmas[i])
        return self._start + (self._slope + eps) * float(0.5 * (self.sigmas[i] - self.sigmas[i - 1]))
