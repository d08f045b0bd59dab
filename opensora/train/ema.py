"""The exponential moving average of the weights, which gives better samples than the weights themselves."""

from collections.abc import Mapping

import numpy as np

from opensora.nn import Tensor
from opensora.nn.flat import Layout, ParameterSharding
from opensora.runtime import mindspore

ms = mindspore()


class EMA:
    """average <- average + (1 - decay) * (weight - average), once per optimizer step.

    The decay of step n is at most (1 + n) / (10 + n), so that the average of a young run is not its random
    start.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], decay: float = 0.9999, sharding: ParameterSharding | None = None
    ) -> None:
        """sharding: which part of the average this device holds, by default all of it."""
        assert 0.0 <= decay < 1.0
        self.decay = decay
        self._sharding = sharding or ParameterSharding()
        self.load(weights)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Set the average to these weights."""
        self._layout = Layout(weights)
        self._vector = self._sharding.local(self._layout.pack(weights))

    @property
    def weights(self) -> dict[str, Tensor]:
        """The average, by weight name."""
        return self._layout.unpack(self._whole())

    def arrays(self) -> dict[str, np.ndarray]:
        """The same on the host."""
        return self._layout.unpack_arrays(self._whole())

    def _whole(self) -> Tensor:
        return self._sharding.gather(self._vector, self._layout.length)

    def update(self, weights: Mapping[str, Tensor], step: int) -> None:
        """Add the weights after optimizer step `step`, counted from 1."""
        share = 1.0 - min(self.decay, (1 + step) / (10 + step))
        self._vector = _blend(
            self._vector, self._sharding.local(self._layout.pack(weights)), ms.Tensor(np.float32(share))
        )


@ms.jit
def _blend(average: Tensor, weight: Tensor, share: Tensor) -> Tensor:
    return average + share * (weight - average)
