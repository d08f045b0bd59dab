"""DEIS of second order (arXiv:2204.13902): the noise prediction is taken as linear in log rho."""

import numpy as np

from opensora.diffusion.samplers.base import (
    Sampler,
    alpha_of,
    rounded_timesteps,
    sigmas_at,
    train_alphas_cumprod,
    transfer,
)
from opensora.nn import Tensor


def log_polynomial_weight(start: float, end: float, node: float, other: float) -> float:
    """Integral over rho of the function that is linear in log rho, 1 at `node` and 0 at `other`."""

    def primitive(rho: float) -> float:
        return rho * (np.log(rho) - np.log(other) - 1.0)

    return float((primitive(end) - primitive(start)) / (np.log(node) - np.log(other)))


class DEIS(Sampler):
    """One evaluation per step.

    Ends at timestep 0, as in the reference; below 15 steps the last is of first order.
    """

    def __init__(self, steps: int, upstream: bool) -> None:
        self.timesteps = rounded_timesteps(steps)
        self._sigmas = sigmas_at(np.append(self.timesteps, 0.0), train_alphas_cumprod())  # (steps + 1,)
        self._previous: Tensor = None

    def step(self, eps: Tensor, i: int, x: Tensor, noise: Tensor = None) -> Tensor:
        previous, self._previous = self._previous, eps
        now, after = float(self._sigmas[i]), float(self._sigmas[i + 1])
        before = float(self._sigmas[i - 1])
        last = i == len(self.timesteps) - 1
        if i == 0 or before == now or (last and len(self.timesteps) < 15):
            return transfer(x, eps, now, after)
        newest = log_polynomial_weight(now, after, node=now, other=before)
        older = log_polynomial_weight(now, after, node=before, other=now)
        scale = alpha_of(after)
        return x * (scale / alpha_of(now)) + eps * (scale * newest) + previous * (scale * older)
