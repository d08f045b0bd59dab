"""DPM-Solver++ of second order with data prediction (arXiv:2211.01095): multistep (algorithm 2) and singlestep (algorithm 1).

Written with rho = sigma / alpha = exp(-lambda), so that the last step, to rho = 0, needs no special case.
"""

from typing import Any

import numpy as np

from opensora.diffusion.samplers.base import (
    Sampler,
    alpha_of,
    rounded_timesteps,
    sigmas_at,
    train_alphas_cumprod,
)


def predicted_data(eps: Any, x: Any, rho: float) -> Any:
    return x * (1.0 / alpha_of(rho)) - eps * rho


def data_step(x: Any, data: Any, rho: float, rho_next: float) -> Any:
    """Exact move between noise-to-data ratios if the predicted data were constant."""
    alpha_next = alpha_of(rho_next)
    ratio = rho_next / rho
    return x * (alpha_next / alpha_of(rho) * ratio) + data * (alpha_next * (1.0 - ratio))


def log_gap(rho: float, rho_next: float) -> float:
    """h, the step in lambda = -log rho."""
    return float(np.log(rho / rho_next))


class DPMSolverMultistep(Sampler):
    """One evaluation a step; the last one, to no noise at all, is of first order."""

    def __init__(self, timesteps: np.ndarray, rhos: np.ndarray) -> None:
        self.timesteps = timesteps  # (steps,)
        self._rhos = np.append(rhos, 0.0)  # (steps + 1,)
        self._previous: Any = None

    def step(self, eps: Any, i: int, x: Any, noise: Any = None) -> Any:
        return self._advance(predicted_data(eps, x, float(self._rhos[i])), i, x)

    def _advance(self, data: Any, i: int, x: Any) -> Any:
        before, now, after = (float(self._rhos[j]) for j in (i - 1, i, i + 1))
        previous, self._previous = self._previous, data
        # Above 500 steps rounding may name a timestep twice: a step of no length has no slope to extrapolate.
        if i == 0 or after == 0.0 or before == now:
            return data_step(x, data, now, after)
        ratio = log_gap(now, after) / log_gap(before, now)
        return data_step(x, data + (data - previous) * (0.5 * ratio), now, after)


class DPMSolverSinglestep(Sampler):
    """Pairs of evaluations, of first and then of second order from the pair's start; the last one is of first order."""

    def __init__(self, steps: int, upstream: bool) -> None:
        self.timesteps = rounded_timesteps(steps)
        self._rhos = np.append(sigmas_at(self.timesteps, train_alphas_cumprod()), 0.0)  # (steps + 1,)
        self._start: Any = None
        self._previous: Any = None

    def step(self, eps: Any, i: int, x: Any, noise: Any = None) -> Any:
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
    """The multistep solver on whole, evenly spaced timesteps."""
    timesteps = rounded_timesteps(steps)
    return DPMSolverMultistep(timesteps, sigmas_at(timesteps, train_alphas_cumprod()))
