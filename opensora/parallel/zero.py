"""Who updates which part of the weights: every rank all of them (plain data parallelism), or each a part of its own (ZeRO-1).

ZeRO-1 (arXiv:1910.02054, section 5.1): gradients are averaged to the rank that owns a part, which alone holds the optimizer's states of
it, updates it and hands it to all others. Parts are contiguous ranges of the flat vectors of `nn/flat.py`, padded to equal length.
"""

from typing import Any

import numpy as np

from opensora import runtime
from opensora.nn.flat import Whole
from opensora.parallel.mesh import Mesh

ms = runtime.mindspore()
ops = ms.ops


def shares_of(mesh: Mesh, parallel_mode: str) -> Whole:
    """What "data" (replicated) or "optim" (sharded) comes to; one process alone updates everything."""
    if mesh.size == 1:
        return Whole()
    return Sharded(mesh) if parallel_mode == "optim" else Replicated(mesh)


class Replicated(Whole):
    """Every rank updates everything, with the mean gradient."""

    def __init__(self, mesh: Mesh) -> None:
        self._world, self._teams = mesh.world, mesh.data[1]

    def mean(self, gradient: Any) -> Any:
        """Ranks of a team hold summands of one gradient, so the sum over all ranks is divided by the number of teams."""
        return self._world.all_reduce(gradient) / self._teams


class Sharded(Whole):
    """Every rank updates the part that belongs to it."""

    def __init__(self, mesh: Mesh) -> None:
        self._world, self._teams = mesh.world, mesh.data[1]
        self.rank, self.ranks = mesh.rank, mesh.size

    def length(self, whole: int) -> int:
        return -(-whole // self.ranks)

    def part(self, vector: Any) -> Any:
        length = self.length(vector.shape[0])
        return self._padded(vector)[self.rank * length : (self.rank + 1) * length]

    def whole(self, part: Any, length: int) -> Any:
        return self._world.all_gather(part)[:length]

    def mean(self, gradient: Any) -> Any:
        return self._world.reduce_scatter(self._padded(gradient)) / self._teams

    def total(self, number: float) -> float:
        return float(sum(self._world.agree(number)))

    def _padded(self, vector: Any) -> Any:
        missing = self.length(vector.shape[0]) * self.ranks - vector.shape[0]
        if not missing:
            return vector
        if isinstance(vector, np.ndarray):
            return np.pad(vector, (0, missing))
        return ops.concat((vector, ops.zeros(missing, vector.dtype)))
