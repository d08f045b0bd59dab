"""DPM-Solver++ of second order (arXiv:2211.01095): multistep (algorithm 2) and singlestep (algorithm 1).

Both predict the data. With rho = sigma / alpha = exp(-lambda), the last step, to rho = 0, is no special case.
"""

import numpy as np

from opensora.diffusion.samplers.base import (
    Sampler,
    alpha_of,
    rounded_timesteps,
    sigmas_at,
    train_alphas_cumprod,
)
from opensora.nn import Tensor


def predicted_data(eps: Tensor, x: Tensor, rho: float) -> Tensor:
    return x * (1.0 / alpha_of(rho)) - eps * rho


def data_step(x: Tensor, data: Tensor, rho: float, rho_next: float) -> Tensor:
    """Move x between noise-to-data ratios; exact if the predicted data are constant."""
    alpha_next = alpha_of(rho_next)
    ratio = rho_next / rho
    return x * (alpha_next / alpha_of(rho) * ratio) + data * (alpha_next * (1.0 - ratio))


def log_gap(rho: float, rho_next: float) -> float:
    """h, the step in lambda = -log rho."""
    return float(np.log(rho / rho_next))


class DPMSolverMultistep(Sampler):
    """One evaluation per step; the last step, to zero noise, is first-order."""

    def __init__(self, timesteps: np.ndarray, rhos: np.ndarray) -> None:
        self.timesteps = timesteps  # (steps,)
        self._rhos = np.append(rhos, 0.0)  # (steps + 1,)
        self._previous: Tensor = None

    def step(self, eps: Tensor, i: int, x: Tensor, noise: Tensor = None) -> Tensor:
        return self._advance(predicted_data(eps, x, float(self._rhos[i])), i, x)

    def _advance(self, data: Tensor, i: int, x: Tensor) -> Tensor:
        before, now, after = (float(self._rhos[j]) for j in (i - 1, i, i + 1))
        previous, self._previous = self._previous, data
        # Above 500 steps rounding may repeat a timestep: there is no slope to extrapolate over a step of
        # length 0.
        if i == 0 or after == 0.0 or before == now:
            return data_step(x, data, now, after)
        ratio = log_gap(now, after) / log_gap(before, now)
        return data_step(x, data + (data - previous) * (0.5 * ratio), now, after)


class DPMSolverSinglestep(Sampler):
    """Pairs of evaluations: a first-order step, then a second-order one from its start.

    The last is first-order.
    """

    def __init__(self, steps: int, upstream: bool) -> None:
        self.timesteps = rounded_timesteps(steps)
        self._rhos = np.append(sigmas_at(self.timesteps, train_alphas_cumprod()), 0.0)  # (steps + 1,)
        self._start: Tensor = None
        self._previous: Tensor = None

    def step(self, eps: Tensor, i: int, x: Tensor, noise: Tensor = None) -> Tensor:
        before, now, after = (float(self._rhos[j]) for j in (i - 1, i, i + 1))
        data = predicted_data(eps, x, now)
        if i % 2 == 0 or after == 0.0:
            self._start, self._previous = x, data
            return data_step(x, data, now, after)
        if before == now:
            return data_step(x, data, now, after)
        ratio = log_gap(before, after) / log_gap(before, now)
        return data_step(self._start, self._previous + (data - self._previous) * (0.5 * ratio), before, after)


def upstream_multistep(steps: int, upstream: bool) -> DPMSolverMultistep:
    """The multistep solver on integer, evenly spaced timesteps."""
    timesteps = rounded_timesteps(steps)
    return DPMSolverMultistep(timesteps, sigmas_at(timesteps, train_alphas_cumprod()))
