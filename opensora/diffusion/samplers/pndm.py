"""PNDM (arXiv:2202.09778): three Runge-Kutta steps, then the Adams-Bashforth multistep formula."""

from itertools import pairwise

import numpy as np

from opensora.diffusion.samplers.base import (
    Sampler,
    leading_timesteps,
    sigmas_of,
    train_alphas_cumprod,
    transfer,
)
from opensora.diffusion.schedule import TRAIN_STEPS
from opensora.nn import Tensor

# Weights of the outputs, newest first, by the number of outputs.
ADAMS_BASHFORTH = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}
RUNGE_KUTTA = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


class PNDM(Sampler):
    """Four evaluations for each of the first three steps, one for each later step: `steps` + 9 in all.

    With fewer than four steps, which the reference refuses, the Runge-Kutta part shrinks to `steps` - 1. As
    in the reference, the last step, at timestep 0 (noise-to-data ratio 0.01), changes nothing.
    """

    def __init__(self, steps: int, upstream: bool) -> None:
        stride = TRAIN_STEPS // steps
        coarse = leading_timesteps(steps)  # (steps,)
        self._warm_steps = min(3, steps - 1)
        warm = []
        self._targets = []  # the timestep that each evaluation leads to
        for now, after in pairwise(coarse[: self._warm_steps + 1]):
            middle = after + stride // 2
            warm += [now, middle, middle, after]
            self._targets += [now - stride // 2, middle, after, after]
        cold = coarse[self._warm_steps :]
        self.timesteps = np.concatenate([warm, cold])
        self._targets += list(cold - stride)
        self._table = sigmas_of(train_alphas_cumprod())
        self._history: list[Tensor] = []
        self._start: Tensor = None
        self._slope: Tensor = None

    def _move(self, x: Tensor, eps: Tensor, timestep: float, target: float) -> Tensor:
        return transfer(x, eps, float(self._table[int(timestep)]), float(self._table[max(int(target), 0)]))

    def step(self, eps: Tensor, i: int, x: Tensor, noise: Tensor = None) -> Tensor:
        if i == 0:
            self._history = []
        if i >= 4 * self._warm_steps:
            self._history = [eps, *self._history[:3]]
            weights = ADAMS_BASHFORTH[len(self._history)]
            slope = sum(output * weight for output, weight in zip(self._history, weights, strict=True))
            return self._move(x, slope, self.timesteps[i], self._targets[i])
        stage = i % 4
        if stage == 0:
            self._history = [eps, *self._history]
            self._start = x
        weighted = eps * RUNGE_KUTTA[stage]
        self._slope = weighted if stage == 0 else self._slope + weighted
        return self._move(
            self._start, self._slope if stage == 3 else eps, self.timesteps[i - stage], self._targets[i]
        )
