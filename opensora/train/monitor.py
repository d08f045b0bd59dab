"""What a run shows: one line of metrics.jsonl per logged step, TensorBoard events, and a line on the terminal."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter


class Monitor:
    """Averages the terms of the steps since the last line, and measures the seconds of a step and the time left."""

    def __init__(self, run: Path, first_step: int, max_steps: int, interval: int) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self.path = run / "metrics.jsonl"
        _forget_after(self.path, first_step)
        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=first_step + 1)
        self.max_steps, self.interval = max_steps, interval
        self._sums: dict[str, float] = {}
        self._count = 0
        self._since = time.monotonic()

    def step(self, step: int, terms: dict[str, float]) -> None:
        """Take in the terms of one finished step, counted from 1."""
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        if step % self.interval and step != self.max_steps:
            return
        seconds = (time.monotonic() - self._since) / self._count
        means = {name: total / self._count for name, total in self._sums.items()}
        self.write(step, {**means, "seconds_per_step": seconds})
        left = seconds * (self.max_steps - step)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in means.items())
        print(f"step {step}/{self.max_steps}  {shown}  {seconds:.2f} s/step  left {_duration(left)}", file=sys.stderr, flush=True)
        self._sums, self._count, self._since = {}, 0, time.monotonic()

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Record values of a step, such as a validation's."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def close(self) -> None:
        self.board.close()


def _forget_after(path: Path, step: int) -> None:
    """Drop the lines after the checkpoint that a run resumes from, so that no step stands twice."""
    if path.is_file():
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        # A line cut short by a kill belongs to no step.
        return float("inf")


def _duration(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60}h{minutes % 60:02d}m" if minutes >= 60 else f"{minutes}m{int(seconds % 60):02d}s"
