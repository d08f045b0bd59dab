"""An exponential moving average of the weights, which samples better than the weights themselves."""

from typing import Any

import numpy as np

from opensora.runtime import mindspore

ms = mindspore()


class EMA:
    """average <- average + (1 - decay) * (weight - average), once per optimizer step.

    The decay of step n is at most (1 + n) / (10 + n), so that the average of a young run is not its random start.
    """

    def __init__(self, weights: dict[str, Any], decay: float = 0.9999) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"ema_decay {decay} is not in [0, 1)")
        self.decay = decay
        self.weights = dict(weights)

    def update(self, weights: dict[str, Any], step: int) -> None:
        """Take in the weights after optimizer step `step`, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        share = ms.Tensor(np.float32(1.0 - decay))
        for name, weight in weights.items():
            self.weights[name] = _blend(self.weights[name], weight, share)


@ms.jit
def _blend(average: Any, weight: Any, share: Any) -> Any:
    return average + share * (weight - average)
