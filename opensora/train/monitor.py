"""Metrics of a run: lines of metrics.jsonl, TensorBoard events, and lines on the terminal."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from opensora.files import naming, read_json_lines, write_atomic
from opensora.train.options import LoopOptions

SECONDS = "seconds_"


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


class Board:
    """TensorBoard events, each written before `write` returns.

    The package's SummaryWriter uses a thread: a full disk ends it silently, and the run waits for it forever.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        """Hides events of earlier processes from `first_step` on."""
        folder.mkdir(parents=True, exist_ok=True)
        self._file = EventsWriter(str(folder / "events"))
        self._file.write_event(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._file.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


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
        if step % self.options.log_interval and step != last:
            return
        seconds = (time.monotonic() - self._since) / self._steps
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        speed = {"seconds_per_step": seconds, "samples_per_second": self.samples_per_step / seconds}
        if self.options.peak_flops and "flops" in means:
            speed["share_of_peak"] = means["flops"] / seconds / self.options.peak_flops
        self.write(step, {**means, **speed})
        shown = "  ".join(
            f"{name} {value:.4g}" for name, value in means.items() if not name.startswith(SECONDS)
        )
        left = _duration(seconds * (last - step))
        with suppress(OSError):  # the terminal may be gone, and the run goes on
            print(
                f"step {step}/{last}  {shown}  {seconds:.2f} s/step  left {left}", file=sys.stderr, flush=True
            )
        self._sums, self._counts, self._steps, self._since = {}, {}, 0, time.monotonic()

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
