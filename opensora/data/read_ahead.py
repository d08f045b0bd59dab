"""Read items in threads while earlier ones are processed."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
Result = TypeVar("Result")


def read_ahead(
    read: Callable[[T], Result], items: Sequence[T], workers: int
) -> Iterator[tuple[T, Callable[[], Result]]]:
    """Yield each item, in order, with a function that returns `read(item)` or raises its exception.

    `workers` threads read that many items ahead; at least one.
    """
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        waiting: deque[tuple[T, Future[Result]]] = deque()
        rest = iter(items)
        for item in islice(rest, max(workers, 1)):
            waiting.append((item, pool.submit(read, item)))
        while waiting:
            item, future = waiting.popleft()
            yield item, future.result
            waiting.extend((following, pool.submit(read, following)) for following in islice(rest, 1))
