"""The training loop: for each step take the batch, train, log, validate, save a checkpoint.

Everything random in step n depends on the seed and n only, so a resumed run continues exactly as if it had
never stopped.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

from opensora.files import check_writable, only_writer
from opensora.parallel.mesh import Mesh
from opensora.train.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from opensora.train.monitor import Monitor
from opensora.train.options import LoopOptions
from opensora.train.prefetch import Prefetch
from opensora.train.run_folder import check_resumed, describe_run
from opensora.train.skipping import SkippedSteps
from opensora.train.stop import StopSignal
from opensora.train.summary import TaskSummary, log_summary
from opensora.weights import Arrays

log = logging.getLogger(__name__)

B = TypeVar("B")
LATEST = "latest"
"""The published name of the run's own newest checkpoint, with which a run continues anyway."""
STOPPED_BY_SIGNAL = 75
"""Exit code of a run that was stopped, saved a checkpoint, and can be continued (EX_TEMPFAIL)."""


class Task(Protocol[B]):
    """A training task: what a step does. Steps count from 1."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The content of the network's config.json, which makes the run folder a folder of its weights."""

    def summary(self) -> TaskSummary:
        """Figures of the task, for messages."""

    def next_commands(self, run: Path) -> list[str]:
        """Commands that use the weights of the run in this folder."""

    def batch(self, step: int) -> B:
        """The batch of a step, for `step`. Called ahead of time, from other threads."""

    def samples(self, step: int) -> list[str]:
        """Names of the samples in the batch of a step, for messages."""

    def step(self, step: int, batch: B) -> dict[str, float]:
        """Train on a batch and return metrics. If one is not finite, no weight and no state changes."""

    def validate(self, step: int, folder: Path) -> dict[str, float]:
        """Return metrics on held-out data, and write samples to `folder`."""

    def state_files(self) -> Mapping[str, Arrays]:
        """The state that a resumed run needs: arrays by file name.

        Called on every rank; rank 0's result is saved.
        """

    def write_shard(self, folder: Path) -> None:
        """Write this rank's part of the state that is sharded, if any."""

    def load_state_files(self, files: Mapping[str, Arrays]) -> None:
        """Continue from `state_files` and the shards of a checkpoint."""


def train(task: Task[B], options: LoopOptions, mesh: Mesh | None = None, initial: Sequence[Path] = ()) -> int:
    """Train until max_train_steps or a signal. Returns the exit code: 0 or STOPPED_BY_SIGNAL.

    Continues the run in output_dir if it has a checkpoint. mesh: the processes that train together, by
    default this one alone. initial: folders of weights that a new run could start from. Raises ValueError for
    too many steps in a row that are not finite, and for an output_dir that is not shared or in which another
    process trains.
    """
    mesh = mesh or Mesh()
    run = Path(options.output_dir)
    writes = mesh.is_first and not options.dry_run
    with only_writer(run, "output_dir") if writes else nullcontext():
        first, state = _resume(task, options, run)
        if len(set(mesh.world.agree(first))) > 1:
            raise ValueError(
                f"the processes see different checkpoints in {run}: "
                "choose an output_dir that all machines share"
            )
        if mesh.is_first:
            log_summary(task.summary(), options, first, mesh, initial)
        if options.dry_run:
            return _end_dry_run(task, first, run)
        return _train(task, options, mesh, first, state)


def _end_dry_run(task: Task[B], first: int, run: Path) -> int:
    """Try what a run does before its first step."""
    check_writable(run, "output_dir")
    task.batch(first + 1)
    log.info("dry run: the first batch was read; nothing was trained or written")
    return 0


def _train(task: Task[B], options: LoopOptions, mesh: Mesh, first: int, state: dict[str, Any]) -> int:
    """Train after step `first`, whose `state` is that of the loop."""
    run = Path(options.output_dir)
    if mesh.is_first:
        describe_run(run, options, task.config, first)
    skipped = SkippedSteps(options.max_skipped_steps, **state.get("skips", {}))
    stopping = False
    with (
        closing(Monitor(run, first, options, state.get("monitor", {}), (mesh.rank, mesh.data[1]))) as monitor,
        StopSignal(quiet=not mesh.is_first) as stop,
        Prefetch(task.batch, first + 1, options.max_train_steps, options.dataloader_prefetch_size) as batches,
    ):
        for step in range(first + 1, options.max_train_steps + 1):
            last = step == options.max_train_steps
            with monitor.watch.part("data"):
                batch = batches.take(step)
            metrics = task.step(step, batch)
            if not skipped.check(step, metrics, task.samples):
                monitor.write(step, {"skipped_steps": skipped.total})
                metrics = {}
            monitor.step(step, metrics)

            if last or (options.validation_steps and step % options.validation_steps == 0):
                monitor.validation(step, task.validate(step, run / "samples"), run / "samples")

            # All ranks read the signal here, at the same step; a later one takes effect after the next step.
            stopping = any(mesh.world.agree(stop.requested)) and not last
            if last or stopping or step % options.checkpointing_steps == 0:
                state = {"monitor": monitor.state(), "skips": skipped.state()}
                keep = options.ckpt_max_keep, options.ckpt_keep_every
                save_checkpoint(run, step, task.state_files(), state, *keep, task.write_shard, mesh.world)
                if mesh.is_first:
                    hint = "; the same command continues" if stopping else ""
                    log.info("saved step %d in %s%s", step, run / "checkpoints", hint)
            if stopping:
                break
    if mesh.is_first and not stopping:
        for command in task.next_commands(run):
            log.info("next: %s", command)
    return STOPPED_BY_SIGNAL if stopping else 0


def _resume(task: Task[B], options: LoopOptions, run: Path) -> tuple[int, dict[str, Any]]:
    """(last finished step, state of the loop); (0, {}) for a new run.

    The newest checkpoint of the run folder comes first, then the checkpoint `resume_from_checkpoint`. Raises
    ValueError if the options do not continue it.
    """
    folder = latest_checkpoint(run)
    if folder is not None:
        check_resumed(run, options, task.config, same_run=True)
    elif options.resume_from_checkpoint is not None and options.resume_from_checkpoint != LATEST:
        folder = Path(options.resume_from_checkpoint)
        check_resumed(folder.absolute().parents[1], options, task.config, same_run=False)
    else:
        return 0, {}
    files, state = load_checkpoint(folder)
    task.load_state_files(files)
    log.info("continuing after step %d from %s", state["step"], folder)
    return int(state["step"]), state
