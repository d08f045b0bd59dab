"""Collectives over the ranks of a group, along the first axis: the native operators on Ascend, AllReduce, AllGather and slices on a CPU.

They are called between compiled blocks, never inside one, so ranks meet in the order of the program. A CPU's collectives give up after
thirty seconds; before each one the ranks wait for one another over `control.py`, which is patient.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from opensora import runtime
from opensora.engine.block import Block, Weights
from opensora.parallel.control import Control

ms = runtime.mindspore()
ops, distributed = ms.ops, ms.mint.distributed
ON_ASCEND = runtime.device() == "Ascend"


class Group:
    """Some ranks of a job, in their order; `index` is this rank's place. A group of one needs no job: its collectives change nothing."""

    def __init__(
        self, ranks: Sequence[int] = (0,), rank: int = 0, name: str = "", control: Control | None = None
    ) -> None:
        """name: that of the framework's communication group, which exists already."""
        self.ranks = tuple(ranks)
        self.index = self.ranks.index(rank)
        self.name = name
        self.sent = 0
        """Bytes that this rank has sent, by the cost of each collective where every link is used best (docs/results/parallel.md)."""
        self._control = control

    @property
    def size(self) -> int:
        return len(self.ranks)

    def all_reduce(self, x: Any) -> Any:
        """The sum over the group, on every rank."""
        return x if self.size == 1 else self._run(_all_reduce, x, 2 * (self.size - 1) / self.size)

    def all_gather(self, x: Any) -> Any:
        """(L, ...) -> (n*L, ...), the members' tensors behind one another."""
        return x if self.size == 1 else self._run(_all_gather, x, self.size - 1)

    def reduce_scatter(self, x: Any) -> Any:
        """(n*L, ...) -> (L, ...): this rank's part of the sum over the group."""
        if self.size == 1:
            return x
        share = (self.size - 1) / self.size
        if ON_ASCEND:
            return self._run(_native_reduce_scatter, x, share)
        length = x.shape[0] // self.size
        return self._run(_all_reduce, x, share)[self.index * length : (self.index + 1) * length]

    def all_to_all(self, x: Any) -> Any:
        """(n*L, ...) -> (n*L, ...): part j goes to member j, part i of the result came from member i."""
        if self.size == 1:
            return x
        share = (self.size - 1) / self.size
        if ON_ASCEND:
            return self._run(_native_all_to_all, x, share)
        everything = self._run(_all_gather, x, share)
        everything = ops.reshape(
            everything, (self.size, self.size, x.shape[0] // self.size, *x.shape[1:])
        )  # (from, to, L, ...)
        return ops.reshape(everything[:, self.index], x.shape)

    def agree(self, value: Any = None) -> list[Any]:
        """Every member's value, a number, text or list, in their order; waits for the last one."""
        if self._control is None:
            return [value]
        return self._control.agree(value, self.name, self.ranks)

    def _run(self, collective: Callable[[Any, str, int], Any], x: Any, share: float) -> Any:
        self.sent += int(share * x.nbytes)
        if not ON_ASCEND:
            x.asnumpy()  # the framework computes behind the program's back: be ready before saying so
            self.agree()
        return collective(x, self.name, self.size)


def _all_reduce(x: Any, group: str, size: int) -> Any:
    return _operator(ops.AllReduce, group)(x)


def _all_gather(x: Any, group: str, size: int) -> Any:
    if ON_ASCEND:
        return _native_all_gather(x, group, size)
    # ops.AllGather knows no group but that of all ranks there.
    parts = [ops.zeros_like(x) for _ in range(size)]
    distributed.all_gather(parts, x, group=group)
    return ops.concat(parts)


def _native_all_gather(x: Any, group: str, size: int) -> Any:
    return _operator(ops.AllGather, group)(x)


def _native_reduce_scatter(x: Any, group: str, size: int) -> Any:
    return _operator(ops.ReduceScatter, group)(x)


def _native_all_to_all(x: Any, group: str, size: int) -> Any:
    received = ops.zeros_like(x)
    distributed.all_to_all_single(received, x, group=group)
    return received


@lru_cache(maxsize=32)
def _operator(kind: Any, group: str) -> Any:
    return kind(group=group)


class LinearMap(Block):
    """A linear map of one tensor that is computed outside of compiled code, as a block of a tape; its gradient is the transposed map."""

    def __init__(self, forward: Callable[[Any], Any], transpose: Callable[[Any], Any]) -> None:
        self._map, self._transpose = forward, transpose

    def __call__(self, weights: Weights, *inputs: Any) -> Any:
        return self._map(inputs[0])

    def gradient(
        self, weights: Weights, inputs: tuple[Any, ...], output_gradient: Any
    ) -> tuple[dict[str, Any], list[Any]]:
        return {}, [self._transpose(output_gradient)]


def all_reduce(group: Group) -> Block:
    """`Group.all_reduce` for a tape whose loss is the sum of the members' losses."""
    return LinearMap(group.all_reduce, group.all_reduce)


def all_gather(group: Group) -> Block:
    return LinearMap(group.all_gather, group.reduce_scatter)


def reduce_scatter(group: Group) -> Block:
    return LinearMap(group.reduce_scatter, group.all_gather)


def all_to_all(group: Group) -> Block:
    return LinearMap(group.all_to_all, group.all_to_all)
