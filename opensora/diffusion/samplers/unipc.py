"""UniPC of second order (arXiv:2302.04867): DPM-Solver++ 2M with a corrector."""

import numpy as np

from opensora.diffusion.samplers.dpm import DPMSolverMultistep, data_step, log_gap, predicted_data
from opensora.nn import Tensor


def corrector_weights(gap: float, gap_before: float) -> tuple[float, float]:
    """Weights of (older data - data at the start) and (new data - data at the start) in a corrected step.

    gap: the length of the step in lambda = -log rho. gap_before: that of the step before it. The step is
    exact for predicted data that are quadratic in lambda (arXiv:2302.04867, theorem 3.1 with B(h) = exp(h) -
    1 at order 2).
    """
    decay = np.expm1(-gap)
    linear = decay / -gap - 1.0
    moments = np.array([linear, 2.0 * (linear / -gap - 0.5)]) / decay
    node = -gap_before / gap  # the older evaluation in units of this step, measured from its start
    older, newest = np.linalg.solve(np.array([[1.0, 1.0], [node, 1.0]]), moments)
    return float(older / node), float(newest)


class UniPC(DPMSolverMultistep):
    """One evaluation per step, which first corrects the step before.

    The last step is first-order and not corrected.
    """

    def __init__(self, timesteps: np.ndarray, rhos: np.ndarray) -> None:
        super().__init__(timesteps, rhos)
        self._start: Tensor = None  # corrected x of the evaluation before
        self._older: Tensor = None  # predicted data of the evaluation before that

    def step(self, eps: Tensor, i: int, x: Tensor, noise: Tensor = None) -> Tensor:
        data = predicted_data(eps, x, float(self._rhos[i]))
        if i > 0:
            x = self._corrected(data, i)
            self._older = self._previous
        self._start = x
        return self._advance(data, i, x)

    def _corrected(self, data: Tensor, i: int) -> Tensor:
        """x at evaluation i: the last step again, using the data now predicted at its end."""
        before, now = float(self._rhos[i - 1]), float(self._rhos[i])
        if i == 1:
            slope = (data - self._previous) * 0.5
        else:
            older, newest = corrector_weights(log_gap(before, now), log_gap(float(self._rhos[i - 2]), before))
            slope = (self._older - self._previous) * older + (data - self._previous) * newest
        return data_step(self._start, self._previous + slope, before, now)
