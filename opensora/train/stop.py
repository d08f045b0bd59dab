"""A clean stop on SIGTERM, SIGINT, and SIGHUP."""

import os
from contextlib import ExitStack, suppress
from types import FrameType, TracebackType

from opensora.interrupts import handled

MESSAGE = b"stopping after this step, with a checkpoint; a second signal stops now, without one\n"


class StopSignal:
    """Turns these signals into a request to stop after the step; a second one interrupts as usual.

    A context manager, which restores the handlers at its end. quiet: do not print that the run stops.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.requested = False
        self._quiet = quiet
        self._handlers = ExitStack()

    def __enter__(self) -> "StopSignal":
        self._handlers.enter_context(handled(self._on_signal))
        return self

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if not self._quiet:
            with suppress(OSError):  # the terminal may be gone
                os.write(2, MESSAGE)  # a buffered stream could be in the middle of a line of its own
        self._handlers.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handlers.close()
