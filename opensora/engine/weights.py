"""Weights that are read when they are asked for: a model then needs the memory of one block's."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from opensora.engine.tensor import Tensor


class OnDemand(Mapping[str, Tensor]):
    """Tensors of `arrays`, which may read files or convert from 16 bits at every access. Takes the place of a
    dict of weights.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], tensor: Callable[[np.ndarray], Tensor]) -> None:
        """tensor: makes a tensor of an engine, which may share the array's memory."""
        self.arrays = arrays
        self._tensor = tensor

    def __getitem__(self, name: str) -> Tensor:
        return self._tensor(self.arrays[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)
