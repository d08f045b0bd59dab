"""The training loop: batches by step number, one step of the task, a log line, a checkpoint, a validation."""

import logging
import math
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Protocol

from opensora.parallel.mesh import Mesh
from opensora.train.checkpoint import Arrays, latest_checkpoint, load_checkpoint, save_checkpoint
from opensora.train.monitor import Monitor
from opensora.train.options import LoopOptions

log = logging.getLogger(__name__)

STOPPED_BY_SIGNAL = 75
"""Exit code of a run that was asked to stop, saved, and can be continued (EX_TEMPFAIL)."""


class Task(Protocol):
    """What is trained. Everything random in step n is drawn from a generator made from (seed, n): no generator has a state to save."""

    def batch(self, step: int) -> Any:
        """The batch of a step; called ahead of time, from another thread."""

    def samples(self, step: int) -> list[str]:
        """Names of the samples in the batch of a step, for messages."""

    def step(self, step: int, batch: Any) -> dict[str, float]:
        """Train on one batch and return what to log. Where a term is not finite, the weights are as they were before."""

    def validate(self, step: int, folder: Path) -> dict[str, float]:
        """Measure on held-out data, leave samples in `folder`, and return what to log."""

    def groups(self) -> Mapping[str, Arrays]:
        """All that a resumed run needs, in groups that become files. Of several processes all are asked, and the first is heard."""

    def write_shard(self, folder: Path) -> None:
        """Write what each of several processes holds a part of; nothing where there is one."""

    def load_groups(self, groups: Mapping[str, Arrays], state: Mapping[str, Any]) -> None:
        """The inverse of `groups`."""


def train(task: Task, options: LoopOptions, mesh: Mesh | None = None) -> int:
    """Train until max_train_steps or a signal, resuming from the run folder. Returns the exit code: 0, or STOPPED_BY_SIGNAL.

    mesh: the processes that do so together, by default this one alone.
    """
    mesh = mesh or Mesh()
    run = Path(options.output_dir)
    first, state = _resume(task, run, options.resume_from_checkpoint)
    if len(set(mesh.world.agree(first))) > 1:
        raise ValueError(
            f"the processes do not see the same checkpoints in {run}: output_dir must be a folder that all machines share"
        )
    stopping = False
    skips = Skips(options.max_skipped_steps, **state.get("skips", {}))
    with (
        closing(Monitor(run, first, options, state.get("monitor", {}), (mesh.rank, mesh.data[1]))) as monitor,
        StopSignal() as stop,
        Prefetch(task, first, options) as batches,
    ):
        for step in range(first + 1, options.max_train_steps + 1):
            with monitor.watch.part("data"):
                batch = batches.take(step)
            terms = task.step(step, batch)
            if skips.count(step, terms, task):
                monitor.write(step, {"skipped_steps": skips.total})
                terms = {}
            monitor.step(step, terms)
            last = step == options.max_train_steps
            if last or (options.validation_steps and step % options.validation_steps == 0):
                monitor.write(step, task.validate(step, run / "samples"))
            # Read once, by all processes at the same step: a signal from here on waits for the next one.
            stopping = any(mesh.world.agree(stop.requested)) and not last
            if last or stopping or step % options.checkpointing_steps == 0:
                state = {"monitor": monitor.state(), "skips": skips.state()}
                keep = options.ckpt_max_keep, options.ckpt_keep_every
                save_checkpoint(run, step, task.groups(), state, *keep, task.write_shard, mesh.world)
            if stopping:
                break
    return STOPPED_BY_SIGNAL if stopping else 0


class Skips:
    """Counts the steps whose loss or gradient was not finite, and ends a run that has too many of them one after the other."""

    def __init__(self, allowed: int, total: int = 0, in_a_row: int = 0) -> None:
        self.allowed, self.total, self.in_a_row = allowed, total, in_a_row

    def state(self) -> dict[str, int]:
        return {"total": self.total, "in_a_row": self.in_a_row}

    def count(self, step: int, terms: Mapping[str, float], task: Task) -> bool:
        """Whether the step was skipped. Raises ValueError when it is the last that is allowed in a row."""
        broken = [f"{name} is {value}" for name, value in terms.items() if not math.isfinite(value)]
        if not broken:
            self.in_a_row = 0
            return False
        self.total += 1
        self.in_a_row += 1
        what = f"step {step}: {', '.join(broken)} with the samples {', '.join(task.samples(step))}"
        if self.in_a_row >= self.allowed:
            raise ValueError(
                f"{what}; {self.in_a_row} steps in a row were skipped: look at these samples, or continue from the newest checkpoint "
                "with a lower learning_rate, or allow more with max_skipped_steps"
            )
        log.warning("%s; the update was skipped", what)
        return True


def _resume(task: Task, run: Path, other: str | None) -> tuple[int, dict[str, Any]]:
    """The last step that is done, and the loop's own state: from the run folder, or from the checkpoint `other` where it has none."""
    folder = latest_checkpoint(run)
    if folder is None and other is not None:
        folder = Path(other)
    if folder is None:
        return 0, {}
    groups, state = load_checkpoint(folder)
    task.load_groups(groups, state)
    log.info("continuing after step %d from %s", state["step"], folder)
    return int(state["step"]), state


class StopSignal:
    """Turns SIGTERM and SIGINT into a request to stop after the step; a second one interrupts as usual."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    def __enter__(self) -> "StopSignal":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._event.set()
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()


class Prefetch:
    """Makes the next batches in threads while a step computes; the order and the content depend on the step numbers only."""

    def __init__(self, task: Task, first: int, options: LoopOptions) -> None:
        self._task = task
        self._ahead, self._last = options.dataloader_prefetch_size, options.max_train_steps
        self._pool = ThreadPoolExecutor(options.dataloader_prefetch_size)
        self._pending: dict[int, Future[Any]] = {}
        self._next = first + 1

    def take(self, step: int) -> Any:
        """The batch of `step`; steps are taken one after the other."""
        while self._next <= min(step + self._ahead, self._last):
            self._pending[self._next] = self._pool.submit(self._task.batch, self._next)
            self._next += 1
        return self._pending.pop(step).result()

    def __enter__(self) -> "Prefetch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
