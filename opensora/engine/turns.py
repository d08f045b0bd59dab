"""Calls of several threads take turns at an engine, in the order in which they came.

MindSpore computes for one thread of a process at a time, so all calls share MINDSPORE. OpenVINO's graphs
are independent: each pipeline has turns of its own, and several pipelines compute side by side.

Neither survives a fork: their worker threads stay in the parent, and a child that computed would wait for
them for ever.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager

SECONDS_BETWEEN_CHECKS = 0.1


class ForkedProcess(RuntimeError):
    """This process was forked from one that had computed."""


class Turns:
    """A fair lock: who waits longest is next. A thread that has its turn may take it again."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._queue: deque[object] = deque()
        self._owner: int | None = None

    @contextmanager
    def turn(self, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """The block is this thread's turn.

        check: called ten times a second while the thread waits; what it raises ends the waiting.
        """
        if self._owner == threading.get_ident():
            yield
            return
        place = object()
        try:
            with self._condition:
                self._queue.append(place)
                while self._queue[0] is not place:
                    self._condition.wait(SECONDS_BETWEEN_CHECKS)
                    check()
            self._owner = threading.get_ident()
            yield
        finally:
            with self._condition:
                if place in self._queue:
                    if self._queue[0] is place:
                        self._owner = None
                    self._queue.remove(place)
                self._condition.notify_all()


MINDSPORE = Turns()
_call = threading.local()
_computed_in: set[int] = set()
"""The process that has computed."""


@contextmanager
def taking_turns(
    own: Turns, engines: Collection[str], check: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """The block is a call that computes: it waits for its turn at `own`, and for MindSpore's in `engines`.

    Raises ForkedProcess in a process that cannot compute.
    """
    check_process()
    with ExitStack() as stack:
        stack.enter_context(own.turn(check))
        outer = getattr(_call, "stack", None)
        _call.stack = outer or stack
        try:
            if "mindspore" in engines:
                take_mindspore(check)
            yield
        finally:
            _call.stack = outer


def take_mindspore(check: Callable[[], None] = lambda: None) -> None:
    """Wait for this thread's turn at MindSpore, which lasts until its call ends. No-op outside of a call."""
    stack = getattr(_call, "stack", None)
    if stack is not None:
        stack.enter_context(MINDSPORE.turn(check))


def computing() -> None:
    """An engine computes from here on. Raises ForkedProcess in a process that cannot."""
    check_process()
    _computed_in.add(os.getpid())


def check_process() -> None:
    """Raise ForkedProcess in a child of a process that has computed."""
    if _computed_in and os.getpid() not in _computed_in:
        raise ForkedProcess(
            "this process was forked from one that had computed, and would wait for ever: "
            "start processes with multiprocessing's 'spawn'"
        )
