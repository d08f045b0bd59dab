"""Signals that end a command: Ctrl-C (SIGINT), SIGTERM, and SIGHUP of a terminal that closes."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

Handler = Callable[[int, FrameType | None], object]
PROGRAMS = ("opensora", "-m")
"""The installed script, and `python -m` until it has found the module."""
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def is_command() -> bool:
    """True if this process runs a command of the package, and not a program that imports it."""
    program = sys.argv[0] if sys.argv else ""
    return os.path.basename(program) in PROGRAMS or os.path.dirname(__file__) in program


def exit_while_importing() -> None:
    """Let Ctrl-C end a command without a traceback while it imports: there is nothing to clean up yet."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)


def _exit(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):  # the terminal may be gone
        os.write(2, b"opensora: interrupted\n")
    os._exit(128 + number)


@contextmanager
def as_python_does() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt, and leave the other signals alone."""
    if signal.getsignal(signal.SIGINT) is _exit:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield


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


@contextmanager
def while_mindspore_computes() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt at the end of the block.

    While a graph runs, and after one was compiled, MindSpore answers Ctrl-C by sending SIGTERM to its own
    process, which would end a program that leaves SIGTERM alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    ends_the_process = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ends_the_process:
        signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        if ends_the_process:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        handler = signal.getsignal(signal.SIGINT)
        if handler is not None:
            signal.signal(signal.SIGINT, handler)  # which is Python's again
    if received:
        raise KeyboardInterrupt
