"""Metrics of a run: lines of metrics.jsonl, TensorBoard events, and lines on the terminal."""

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from opensora.console import time_text
from opensora.files import naming, read_json_lines, write_atomic
from opensora.train.board import Board
from opensora.train.options import LoopOptions

log = logging.getLogger(__name__)

SECONDS = "seconds_"
TIMED = (2, 3)
"""Steps of a process that tell how long a step takes; the first one compiles."""


class Stopwatch:
    """Measures the named parts of a step in seconds."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - start

    def read(self) -> dict[str, float]:
        """The seconds since the last call as `seconds_<part>`."""
        seconds, self._seconds = self._seconds, {}
        return {f"seconds_{name}": value for name, value in seconds.items()}


class _Pace:
    """Seconds a step in this process; its first step compiles and does not count."""

    def __init__(self) -> None:
        self._last, self._first_end = time.monotonic(), 0.0
        self._count, self._fastest = 0, float("inf")

    def step(self) -> float | None:
        """Count a step. Returns the seconds of the fastest of TIMED, once, after the last of them."""
        now = time.monotonic()
        self._count += 1
        if self._count == 1:
            self._first_end = now
        if self._count in TIMED:
            self._fastest = min(self._fastest, now - self._last)
        self._last = now
        return self._fastest if self._count == TIMED[-1] else None

    def without_first(self, steps: int) -> float | None:
        """The mean of the last `steps` steps without the first step, if that and others are among them."""
        if steps != self._count or steps < 2:
            return None
        return (self._last - self._first_end) / (steps - 1)


class Monitor:
    """Logs the means of metrics over the steps since the last line, the seconds per step, and the time left.

    Metrics that begin with `seconds_` are times, which are not printed on the terminal.
    """

    def __init__(
        self,
        run: Path,
        first_step: int,
        options: LoopOptions,
        state: Mapping[str, Any] | None = None,
        processes: tuple[int, int] = (0, 1),
    ) -> None:
        """Continue the log of a run after `first_step`.

        state: `Monitor.state` at that step, so that the next line averages the same steps.
        processes: (which, of how many); only the first writes to the run folder.
        """
        self.path = run / "metrics.jsonl"
        self.board: Board | None = None
        if processes[0] == 0:
            run.mkdir(parents=True, exist_ok=True)
            _remove_after(self.path, first_step)
            self.board = Board(run / "tensorboard", first_step + 1)
        self.options, self.samples_per_step = options, options.samples_per_step * processes[1]
        self.watch = Stopwatch()
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        if state:
            self._sums, self._counts = dict(state["sums"]), dict(state["counts"])
        self._since, self._steps = time.monotonic(), 0
        self._pace = _Pace()

    def state(self) -> dict[str, Any]:
        """The sums for the next line, without times."""
        names = [name for name in self._sums if not name.startswith(SECONDS)]
        return {
            "sums": {name: self._sums[name] for name in names},
            "counts": {name: self._counts[name] for name in names},
        }

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of a finished step, counted from 1, and write a line if it is due.

        A step may lack some metrics.
        """
        for name, value in {**metrics, **self.watch.read()}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        self._steps += 1
        last = self.options.max_train_steps
        measured = self._pace.step()
        if measured is not None and self.board is not None:
            rest = f"about {time_text(measured * (last - step))} for the other {last - step:,}"
            log.info("a step takes %.2f s once compiled: %s", measured, rest)
        if step % self.options.log_interval and step != last:
            return
        seconds = (time.monotonic() - self._since) / self._steps
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        speed = {"seconds_per_step": seconds, "samples_per_second": self.samples_per_step / seconds}
        if self.options.peak_flops and "flops" in means:
            speed["share_of_peak"] = means["flops"] / seconds / self.options.peak_flops
        self.write(step, {**means, **speed})
        shown = {name: value for name, value in means.items() if not name.startswith(SECONDS)}
        pace = self._pace.without_first(self._steps) or seconds
        self._print(step, shown, f"  {pace:.2f} s/step  left {_duration(pace * (last - step))}")
        self._sums, self._counts, self._steps, self._since = {}, {}, 0, time.monotonic()

    def _print(self, step: int, values: Mapping[str, float], rest: str = "") -> None:
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        with suppress(OSError):  # the terminal may be gone, and the run goes on
            line = f"step {step}/{self.options.max_train_steps}  {shown}{rest}"
            print(line, file=sys.stderr, flush=True)

    def validation(self, step: int, values: dict[str, Any], samples: Path) -> None:
        """Write and print metrics of a validation, and show the samples that it wrote.

        samples: the folder with step-<step>.png, and videos and pictures in step-<step>.
        """
        self.write(step, values)
        if self.board is None:
            return
        if values:
            self._print(step, values)
        folder = samples / f"step-{step:08d}"
        if folder.with_suffix(".png").is_file():
            self.board.show(step, "samples", folder.with_suffix(".png"))
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix in (".mp4", ".png"):
                self.board.show(step, f"samples/{path.stem}", path)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Write values of a step, such as those of a validation, if there are any."""
        if self.board is None or not values:
            return
        with naming(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        self.board.write(step, values)

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


def _remove_after(path: Path, step: int) -> None:
    """Remove the lines after the checkpoint that a run resumes from, so that no step is there twice."""
    if path.is_file():
        lines = [json.dumps(line) for line in read_json_lines(path) if _step_of(line) <= step]
        write_atomic(path, lambda file: file.write("".join(f"{line}\n" for line in lines).encode()))


def _step_of(line: dict[str, Any]) -> float:
    step = line.get("step")
    return step if isinstance(step, int | float) else float("inf")


def _duration(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60}h{minutes % 60:02d}m" if minutes >= 60 else f"{minutes}m{int(seconds % 60):02d}s"
