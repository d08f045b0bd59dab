"""Many tensors as one vector: one operation for all of them in place of one each, and a plain range to share out over devices."""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from opensora.runtime import mindspore

ms = mindspore()
ops = ms.ops


class Layout:
    """Names and shapes of tensors, in the order in which they lie in the vector."""

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        self.shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        self.sizes = [prod(shape) for shape in self.shapes.values()]

    def pack(self, tensors: Mapping[str, Any]) -> Any:
        """The vector (total,) of these tensors, which may be more than the layout's."""
        return ops.concat([ops.reshape(tensors[name], (-1,)) for name in self.shapes])

    def unpack(self, vector: Any) -> dict[str, Any]:
        """The tensors of a vector."""
        parts = ops.split(vector, self.sizes)
        return {name: ops.reshape(part, shape) for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)}

    def unpack_arrays(self, vector: Any) -> dict[str, np.ndarray]:
        """The same on the host."""
        parts = np.split(vector.asnumpy(), np.cumsum(self.sizes)[:-1])
        return {name: part.reshape(shape) for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)}
