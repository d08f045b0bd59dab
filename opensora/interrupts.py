"""Signals that end a command: Ctrl-C (SIGINT), SIGTERM, and SIGHUP of a terminal that closes."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object]
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def as_interrupts() -> Iterator[None]:
    """Let all of them raise KeyboardInterrupt, so that a command removes its temporary files.

    Once MindSpore has compiled, it answers Ctrl-C by sending SIGTERM to its own process.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with handled(interrupt):
        yield


@contextmanager
def deferred() -> Iterator[None]:
    """Delay KeyboardInterrupt to the end of the block, such as an import that must not be cut short."""
    received: list[int] = []
    with handled(lambda number, frame: received.append(number)):
        yield
    if received:
        raise KeyboardInterrupt


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Handle them in the block. A SIGHUP that is ignored, by nohup, stays so; other threads handle none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    if before[signal.SIGHUP] == signal.SIG_IGN:
        del before[signal.SIGHUP]
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def give_back() -> None:
    """Give Ctrl-C back to Python's handler: MindSpore puts one of its own in its place when it compiles."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, handler)
