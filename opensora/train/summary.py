"""The summary before the first step of a run: parameters, samples, and the memory and disk that it takes."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from opensora.console import memory_text
from opensora.parallel.mesh import Mesh
from opensora.runtime import free_memory, free_swap, used_memory
from opensora.train.options import LoopOptions

log = logging.getLogger(__name__)


class TaskSummary(NamedTuple):
    """Figures of a task."""

    parameters: int
    """Parameters that are trained."""
    samples: int | None
    """Samples of an epoch; None if every sample is new."""
    memory: int
    """Bytes that the steps take at least, beside what the process has taken before the first of them."""
    checkpoint: int
    """Bytes of a checkpoint."""


def log_summary(
    task: TaskSummary, options: LoopOptions, first_step: int, mesh: Mesh, initial: Sequence[Path]
) -> None:
    """Log what a run does after `first_step`, with a warning for memory or disk that will not suffice.

    initial: folders of weights that a run could start from, and does not unless an option names them.
    """
    log.info("%s", _work(task, options, mesh))
    if not first_step:
        _log_start(options, initial)
    _log_memory(task.memory)
    _log_disk(task.checkpoint, options)
    if first_step >= options.max_train_steps:
        log.info("the run has all of its %d steps: raise --max_train_steps to continue", first_step)


def _work(task: TaskSummary, options: LoopOptions, mesh: Mesh) -> str:
    size = options.samples_per_step * mesh.data[1]
    work = f"training {task.parameters:,} parameters: {options.max_train_steps:,} steps of {_count(size)}"
    if task.samples is None:
        return work
    epoch = task.samples / size
    return (
        f"{work}; an epoch of {_count(task.samples)} is {epoch:,.4g} steps, "
        f"the run {options.max_train_steps / epoch:,.3g} epochs"
    )


def _count(samples: int) -> str:
    return "1 sample" if samples == 1 else f"{samples:,} samples"


def _log_start(options: LoopOptions, initial: Sequence[Path]) -> None:
    chosen = getattr(options, options.INITIAL, None)
    if chosen is not None:
        log.info("starting from the weights of %s", chosen)
        return
    log.info("starting from random weights of seed %d", options.seed)
    for folder in initial:
        log.warning("the weights in %s are not loaded: --%s starts from them", folder, options.INITIAL)


def _log_memory(further: int) -> None:
    used, free = used_memory(), free_memory() + free_swap()
    needed = f"at least {memory_text(used + further)} of memory"
    log.info("%s, %s of it is taken; %s are free", needed, memory_text(used), memory_text(free))
    if further > free:
        log.warning("this is more memory than there is: use a smaller --batch_size, or close other programs")


def _log_disk(checkpoint: int, options: LoopOptions) -> None:
    run = Path(options.output_dir).absolute()
    saved = [path for path in (run / "checkpoints").rglob("*") if path.is_file()]
    total = checkpoint * _most_checkpoints(options)
    taken = sum(path.stat().st_size for path in saved)
    free = shutil.disk_usage(next(folder for folder in (run, *run.parents) if folder.exists())).free
    log.info(
        "a checkpoint takes %s of disk, the run up to %s; %s are free",
        *(memory_text(size) for size in (checkpoint, total, free)),
    )
    if total - taken > free:
        log.warning(
            "this is more than the disk of %s has: free space, or keep fewer with --ckpt_max_keep", run
        )


def _most_checkpoints(options: LoopOptions) -> int:
    """Checkpoints on the disk at once: one is written before the oldest is removed."""
    in_all = -(-options.max_train_steps // options.checkpointing_steps)
    if not options.ckpt_max_keep:
        return in_all
    every = options.ckpt_keep_every
    return min(in_all, options.ckpt_max_keep + 1 + (options.max_train_steps // every if every else 0))
