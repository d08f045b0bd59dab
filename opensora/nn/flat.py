"""Many tensors as one flat vector: one operation updates all of them, and devices share it by ranges."""

from collections.abc import Mapping
from math import prod

import numpy as np

from opensora.engine.tensor import Tensor
from opensora.runtime import device, mindspore

ms = mindspore()
ops = ms.ops


def square_sum(tensor: Tensor) -> float:
    """The sum of the squares of all elements.

    On a CPU it is computed on the host: the framework's sum over all axes of a large tensor depends on how
    its threads split the elements, so the last digits differ from run to run. Sums over some axes do not.
    """
    if device() != "CPU":
        return float(ops.sum(tensor * tensor).asnumpy())
    values = tensor.asnumpy().ravel()
    return float(np.einsum("i,i->", values, values, dtype=np.float64))


class Layout:
    """Names and shapes of tensors, in their order in the vector."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        self.sizes = [prod(shape) for shape in self.shapes.values()]
        self.length = sum(self.sizes)

    def pack(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The vector (length,) of these tensors; tensors that are not in the layout are ignored."""
        if device() == "CPU":  # a thread of the host copies faster than the framework's kernel
            return ms.Tensor.from_numpy(
                np.concatenate([tensors[name].asnumpy().ravel() for name in self.shapes])
            )
        return ops.concat([ops.reshape(tensors[name], (-1,)) for name in self.shapes])

    def pack_arrays(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """`pack` for arrays on the host."""
        return np.concatenate([np.ravel(arrays[name]) for name in self.shapes])

    def unpack(self, vector: Tensor) -> dict[str, Tensor]:
        """The tensors of a vector (length,): the inverse of `pack`. On a CPU they share its memory."""
        if device() == "CPU":
            return {name: ms.Tensor.from_numpy(part) for name, part in self.unpack_arrays(vector).items()}
        parts = ops.split(vector, self.sizes)
        return {
            name: ops.reshape(part, shape)
            for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)
        }

    def unpack_arrays(self, vector: Tensor) -> dict[str, np.ndarray]:
        """`unpack` to arrays on the host."""
        parts = np.split(vector.asnumpy(), np.cumsum(self.sizes)[:-1])
        return {
            name: part.reshape(shape) for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)
        }


class ParameterSharding:
    """The part of a flat vector that this device updates: here, all of it.

    `parallel/zero.py` has the other forms.
    """

    rank, ranks = 0, 1
    """The number of this device's part, and the number of different parts."""

    def local_length(self, length: int) -> int:
        """The length of this device's part of a vector (length,)."""
        return length

    def local(self, vector: Tensor) -> Tensor:
        """This device's part of a vector, a tensor or an array, that is the same on all devices."""
        return vector

    def gather(self, part: Tensor, length: int) -> Tensor:
        """The vector (length,) of all devices' parts: the inverse of `local`."""
        return part

    def reduce_mean(self, gradient: Tensor) -> Tensor:
        """This device's part of the mean of all devices' gradients."""
        return gradient

    def all_sum(self, number: float) -> float:
        """The sum of a number over all parts."""
        return number
