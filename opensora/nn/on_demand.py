"""Weights that become tensors when a block asks for them and are let go after it: a model then needs the memory of one block's."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from opensora.runtime import mindspore

ms = mindspore()


class OnDemand(Mapping[str, Any]):
    """float32 tensors of `arrays`, which may read files or convert from 16 bits at every access.

    Takes the place of a dict of weights.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays = arrays

    def __getitem__(self, name: str) -> Any:
        return ms.Tensor.from_numpy(self.arrays[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)


def tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """All `arrays` as tensors that share their memory, so that nothing is held twice."""
    return {name: ms.Tensor.from_numpy(arrays[name]) for name in arrays}
