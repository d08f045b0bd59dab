"""Console output: printable names, aligned tables, units, and progress bars."""

import io
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

T = TypeVar("T")

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that steer a terminal or break a line, marks that reverse the text, and lone surrogates."""


def printable(text: object) -> str:
    """The text on one line. Control characters, which a name or a caption may hold, are escaped: \\x1b."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(text))


def shortened(text: str, length: int = 80) -> str:
    """A text for a message, with an ellipsis if it is longer."""
    return text if len(text) <= length else f"{text[:length]}..."


def say(line: object) -> None:
    """Print one line of a result, with control characters escaped."""
    print(printable(line))


def open_closed_streams() -> None:
    """Open the null device in place of standard streams that are closed, as a scheduler may start a program.

    Otherwise a file of the user would get their number, and be written to by whatever prints.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  for the whole process


def escape_unencodable() -> None:
    """Let stdout and stderr write characters that their encoding lacks as escapes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns: the first column left, the others right; control characters are escaped."""
    lines = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    padded = (
        [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        for line in lines
    )
    return "\n".join("  ".join(row).rstrip() for row in padded)


def operations_text(count: float) -> str:
    """2.5e13 -> "25 TFLOP"."""
    for name, unit in (("EFLOP", 1e18), ("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9)):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count / 1e6:.3g} MFLOP"


def time_text(seconds: float) -> str:
    """9000 -> "2.5 hours"."""
    for name, unit in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}" if seconds < 10 * unit else f"{seconds / unit:.0f} {name}"
    return f"{max(seconds, 1):.0f} s"


def memory_text(size: float) -> str:
    """Bytes in GiB, or in MiB if they are few."""
    if size < 2**30 / 10:
        return f"{size / 2**20:.1f} MiB"
    return f"{size / 2**30:.1f} GiB"


class Progress:
    """A bar on a terminal, a plain line every ten seconds elsewhere.

    Counts `total` steps of the work `label`. The first step may compile, so it does not count for s/step and
    the time left.
    """

    def __init__(
        self,
        label: str,
        total: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.label = label
        self.total = total
        self.clock = clock
        self.done = 0
        self._stream = stream or sys.stderr
        self._bar: Any = None
        self._first = self._last_line = clock()

    def step(self, _: Any = None) -> None:
        """Count one step."""
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
        line += f", {pace:.2f} s/step"
        if self.done == self.total:
            return line
        return f"{line}, {pace * (self.total - self.done):.0f} s left"

    def _draw(self) -> None:
        if self._bar is None:
            self._bar = tqdm(
                desc=self.label,
                total=self.total,
                initial=self.done,
                unit="step",
                file=self._stream,
                dynamic_ncols=True,
            )
        else:
            self._bar.update(1)
        if self.done == self.total:
            self._bar.close()


def track(items: Sequence[T], label: str) -> Iterator[T]:
    """Yield the items and show the progress of the work `label` on them."""
    return counted(items, label, len(items))


def counted(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """`track` for items whose number is known beforehand."""
    progress = Progress(label, total)
    for item in items:
        yield item
        progress.step()
