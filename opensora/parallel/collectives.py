"""Collectives over the ranks of a group, along the first axis.

Ascend has an operator for each; a CPU has AllReduce and AllGather, and slices of their results give the
others. Collectives are called between compiled blocks, never inside one, so all ranks call them in the order
of the program. On a CPU they time out after thirty seconds, so before each one the ranks wait for one another
over the control line (`control.py`), which has no timeout.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from opensora.engine.block import Gradients, Pullback, Weights
from opensora.nn import Tensor
from opensora.parallel.control import Control
from opensora.runtime import LazyMindSpore, device

ops, distributed = LazyMindSpore("ops"), LazyMindSpore("mint.distributed")


def on_ascend() -> bool:
    return device() == "Ascend"


class ProcessGroup:
    """Some ranks of a job in a fixed order. The collectives of a group of one rank return their input."""

    def __init__(
        self, ranks: Sequence[int] = (0,), rank: int = 0, name: str = "", control: Control | None = None
    ) -> None:
        """
        rank: this process, one of `ranks`.
        name: the framework's communication group, which must exist already.
        """
        self.ranks = tuple(ranks)
        self.index = self.ranks.index(rank)
        self.name = name
        self.sent = 0
        """Bytes that this rank has sent, if every collective uses its links best (docs/parallel.md)."""
        self._control = control

    @property
    def size(self) -> int:
        return len(self.ranks)

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum over the group, on every rank."""
        return x if self.size == 1 else self._run(_all_reduce, x, 2 * (self.size - 1) / self.size)

    def all_gather(self, x: Tensor) -> Tensor:
        """(L, ...) -> (n*L, ...): the tensors of all ranks, concatenated."""
        return x if self.size == 1 else self._run(_all_gather, x, self.size - 1)

    def reduce_scatter(self, x: Tensor) -> Tensor:
        """(n*L, ...) -> (L, ...): this rank's part of the sum over the group."""
        if self.size == 1:
            return x
        share = (self.size - 1) / self.size
        if on_ascend():
            return self._run(_native_reduce_scatter, x, share)
        length = x.shape[0] // self.size
        return self._run(_all_reduce, x, share)[self.index * length : (self.index + 1) * length]

    def all_to_all(self, x: Tensor) -> Tensor:
        """(n*L, ...) -> (n*L, ...): part j goes to rank j, part i of the result comes from rank i."""
        if self.size == 1:
            return x
        share = (self.size - 1) / self.size
        if on_ascend():
            return self._run(_native_all_to_all, x, share)
        n, length = self.size, x.shape[0] // self.size
        parts = ops.reshape(self._run(_all_gather, x, share), (n, n, length, *x.shape[1:]))
        return ops.reshape(parts[:, self.index], x.shape)  # parts is (from, to, L, ...)

    def agree(self, value: Any = None) -> list[Any]:
        """The values (number, text or list) of all ranks in their order; waits for every rank."""
        if self._control is None:
            return [value]
        return self._control.agree(value, self.name, self.ranks)

    def _run(self, collective: Callable[[Tensor, str, int], Tensor], x: Tensor, share: float) -> Tensor:
        """share: the part of the bytes of x that this rank sends."""
        self.sent += int(share * x.nbytes)
        if not on_ascend():
            x.asnumpy()  # waits for the computation of x, which is asynchronous
            self.agree()
        return collective(x, self.name, self.size)


def _all_reduce(x: Tensor, group: str, size: int) -> Tensor:
    return _operator(ops.AllReduce, group)(x)


def _all_gather(x: Tensor, group: str, size: int) -> Tensor:
    if on_ascend():
        return _native_all_gather(x, group, size)
    # On a CPU ops.AllGather works only on the group of all ranks.
    parts = [ops.zeros_like(x) for _ in range(size)]
    distributed.all_gather(parts, x, group=group)
    return ops.concat(parts)


def _native_all_gather(x: Tensor, group: str, size: int) -> Tensor:
    return _operator(ops.AllGather, group)(x)


def _native_reduce_scatter(x: Tensor, group: str, size: int) -> Tensor:
    return _operator(ops.ReduceScatter, group)(x)


def _native_all_to_all(x: Tensor, group: str, size: int) -> Tensor:
    received = ops.zeros_like(x)
    distributed.all_to_all_single(received, x, group=group)
    return received


@lru_cache(maxsize=32)
def _operator(kind: Callable[..., Any], group: str) -> Callable[[Tensor], Tensor]:
    return kind(group=group)


class LinearMap:
    """A linear map of one tensor, computed outside compiled code; its gradient is the transposed map."""

    def __init__(self, forward: Callable[[Tensor], Tensor], transpose: Callable[[Tensor], Tensor]) -> None:
        self._forward, self._transpose = forward, transpose

    def __call__(self, weights: Weights, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return self._forward(x)

    def gradient(self, weights: Weights, inputs: tuple[Tensor, ...], output_gradient: Tensor) -> Gradients:
        return self._pullback(output_gradient)

    def with_saved_activations(self, weights: Weights, *inputs: Tensor) -> tuple[Tensor, Pullback]:
        return self(weights, *inputs), self._pullback

    def _pullback(self, output_gradient: Tensor) -> Gradients:
        return {}, [self._transpose(output_gradient)]


def all_reduce(group: ProcessGroup) -> LinearMap:
    """`ProcessGroup.all_reduce` for a tape; the loss is the sum of the ranks' losses, here and below."""
    return LinearMap(group.all_reduce, group.all_reduce)


def all_gather(group: ProcessGroup) -> LinearMap:
    """`ProcessGroup.all_gather` for a tape."""
    return LinearMap(group.all_gather, group.reduce_scatter)


def reduce_scatter(group: ProcessGroup) -> LinearMap:
    """`ProcessGroup.reduce_scatter` for a tape."""
    return LinearMap(group.reduce_scatter, group.all_gather)


def all_to_all(group: ProcessGroup) -> LinearMap:
    """`ProcessGroup.all_to_all` for a tape."""
    return LinearMap(group.all_to_all, group.all_to_all)
