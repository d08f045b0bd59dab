"""Data parallelism: every rank updates all weights, or, with ZeRO-1, a part of its own.

ZeRO-1 (arXiv:1910.02054, section 5.1): a rank holds the optimizer's states of its part only. It receives the
mean gradient of that part, updates it, and sends it to all others. Parts are equal ranges of the flat vectors
of `nn/flat.py`, padded with zeros.
"""

import numpy as np

from opensora import runtime
from opensora.nn import Tensor
from opensora.nn.flat import ParameterSharding
from opensora.parallel.mesh import Mesh

ms = runtime.mindspore()
ops = ms.ops


def parameter_sharding(mesh: Mesh, parallel_mode: str) -> ParameterSharding:
    """The form for `parallel_mode`, "data" (replicated) or "optim" (sharded).

    A single process needs neither.
    """
    if mesh.size == 1:
        return ParameterSharding()
    return ShardedParameters(mesh) if parallel_mode == "optim" else ReplicatedParameters(mesh)


class ReplicatedParameters(ParameterSharding):
    """Every rank updates all weights with the mean gradient."""

    def __init__(self, mesh: Mesh) -> None:
        self._world, self._teams = mesh.world, mesh.data[1]

    def reduce_mean(self, gradient: Tensor) -> Tensor:
        # The ranks of a team hold summands of one gradient, so the sum over all ranks is divided by the
        # teams.
        return self._world.all_reduce(gradient) / self._teams


class ShardedParameters(ParameterSharding):
    """Every rank updates its own part of the weights."""

    def __init__(self, mesh: Mesh) -> None:
        self._world, self._teams = mesh.world, mesh.data[1]
        self.rank, self.ranks = mesh.rank, mesh.size

    def local_length(self, length: int) -> int:
        return -(-length // self.ranks)

    def local(self, vector: Tensor) -> Tensor:
        length = self.local_length(vector.shape[0])
        return self._padded(vector)[self.rank * length : (self.rank + 1) * length]

    def gather(self, part: Tensor, length: int) -> Tensor:
        return self._world.all_gather(part)[:length]

    def reduce_mean(self, gradient: Tensor) -> Tensor:
        return self._world.reduce_scatter(self._padded(gradient)) / self._teams

    def all_sum(self, number: float) -> float:
        return float(sum(self._world.agree(number)))

    def _padded(self, vector: Tensor) -> Tensor:
        missing = self.local_length(vector.shape[0]) * self.ranks - vector.shape[0]
        if not missing:
            return vector
        if isinstance(vector, np.ndarray):
            return np.pad(vector, (0, missing))
        return ops.concat((vector, ops.zeros(missing, vector.dtype)))
