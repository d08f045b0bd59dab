"""Many tensors as one vector: one operation for all of them in place of one each, and a plain range to share out over devices."""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from opensora.runtime import device, mindspore

ms = mindspore()
ops = ms.ops


def square_sum(tensor: Any) -> float:
    """The sum of the squares of all elements.

    On a CPU on the host, since there the framework's sum over all axes of a large tensor ends in other last digits from one execution to
    the next, by how its threads shared the elements. Sums that leave an axis do not.
    """
    if device() != "CPU":
        return float(ops.sum(tensor * tensor).asnumpy())
    values = tensor.asnumpy().ravel()
    return float(np.einsum("i,i->", values, values, dtype=np.float64))


class Layout:
    """Names and shapes of tensors, in the order in which they lie in the vector."""

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        self.shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        self.sizes = [prod(shape) for shape in self.shapes.values()]
        self.length = sum(self.sizes)

    def pack(self, tensors: Mapping[str, Any]) -> Any:
        """The vector (total,) of these tensors, which may be more than the layout's."""
        return ops.concat([ops.reshape(tensors[name], (-1,)) for name in self.shapes])

    def pack_arrays(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """The same of arrays on the host."""
        return np.concatenate([np.ravel(arrays[name]) for name in self.shapes])

    def unpack(self, vector: Any) -> dict[str, Any]:
        """The tensors of a vector."""
        parts = ops.split(vector, self.sizes)
        return {
            name: ops.reshape(part, shape)
            for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)
        }

    def unpack_arrays(self, vector: Any) -> dict[str, np.ndarray]:
        """The same on the host."""
        parts = np.split(vector.asnumpy(), np.cumsum(self.sizes)[:-1])
        return {
            name: part.reshape(shape) for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)
        }


class Whole:
    """Who updates which part of a vector: one device all of it. `parallel/zero.py` has the answers for several devices."""

    rank, ranks = 0, 1
    """Whose part this is, of how many different ones."""

    def length(self, whole: int) -> int:
        """Length of this device's part of a vector."""
        return whole

    def part(self, vector: Any) -> Any:
        """This device's part of a vector, a tensor or an array, that is the same on all devices."""
        return vector

    def whole(self, part: Any, length: int) -> Any:
        """The inverse of `part`: the vector (length,)."""
        return part

    def mean(self, gradient: Any) -> Any:
        """This device's part of the mean of all devices' gradients."""
        return gradient

    def total(self, number: float) -> float:
        """The sum of a number over all parts."""
        return number
