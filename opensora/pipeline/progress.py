"""How far a long run is: a bar on a terminal, a plain line now and then elsewhere."""

import logging
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from tqdm import tqdm

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts `total` steps of the work `label`. The first step may compile: it does not enter s/step and the time left."""

    def __init__(self, label: str, total: int, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.label = label
        self.total = total
        self.clock = clock
        self.done = 0
        self._stream = stream or sys.stderr
        self._bar: Any = None
        self._first = self._last_line = clock()

    def step(self, _: Any = None) -> None:
        """One more step is done."""
        self.done += 1
        now = self.clock()
        if self.done == 1:
            self._first = now
        if self._stream.isatty():
            self._draw()
        elif self.done == self.total or now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            log.info("%s", self._line(now))

    def _line(self, now: float) -> str:
        line = f"{self.label}: step {self.done} of {self.total}"
        if self.done == 1:
            return line
        pace = (now - self._first) / (self.done - 1)
        return f"{line}, {pace:.2f} s/step" + (f", {pace * (self.total - self.done):.0f} s left" if self.done < self.total else "")

    def _draw(self) -> None:
        if self._bar is None:
            self._bar = tqdm(desc=self.label, total=self.total, initial=self.done, unit="step", file=self._stream, dynamic_ncols=True)
        else:
            self._bar.update(1)
        if self.done == self.total:
            self._bar.close()
