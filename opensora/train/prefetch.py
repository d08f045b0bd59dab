"""Batches that are prepared in threads while a step computes."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

B = TypeVar("B")


class Prefetch(Generic[B]):
    """Calls `make(step)` up to `ahead` steps ahead of time, each in its own thread.

    A context manager, which waits for its threads.
    """

    def __init__(self, make: Callable[[int], B], first: int, last: int, ahead: int) -> None:
        """first, last: the steps that will be taken."""
        self._make, self._next, self._last, self._ahead = make, first, last, ahead
        self._pool = ThreadPoolExecutor(ahead)
        self._pending: dict[int, Future[B]] = {}

    def take(self, step: int) -> B:
        """The batch of `step`; steps are taken in order. Raises what `make` raised."""
        while self._next <= min(step + self._ahead, self._last):
            self._pending[self._next] = self._pool.submit(self._make, self._next)
            self._next += 1
        return self._pending.pop(step).result()

    def __enter__(self) -> "Prefetch[B]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
