"""Jobs of two and four processes: collectives, gradients over shared frames, optimizer states, and processes that fail."""

import time
from pathlib import Path

import pytest

from opensora.parallel.control import KILLED
from opensora.train.checkpoint import latest_checkpoint, load_checkpoint
from tests.parallel import launch

pytestmark = pytest.mark.slow


def run(processes: int, *words: object, logs: Path) -> launch.Job:
    return launch.run(processes, ["-m", "tests.parallel.jobs", *words], logs)


def test_collectives_and_optimizers_of_two(tmp_path: Path) -> None:
    job = run(2, "groups", 2, logs=tmp_path)
    assert job.code == 0, job


def test_frames_shared_by_two(tmp_path: Path) -> None:
    job = run(2, "gradients", 2, "5+2", "7+0", logs=tmp_path)
    assert job.code == 0, job


def test_four_processes(tmp_path: Path) -> None:
    job = run(4, "groups", 4, logs=tmp_path / "groups")
    assert job.code == 0, job
    job = run(4, "gradients", 4, "5+0", "17+2", logs=tmp_path / "gradients")
    assert job.code == 0, job


@pytest.mark.parametrize(
    ("how", "reason", "kept"),
    [("killed in a step", KILLED, 4), ("killed in a save", KILLED, 4), ("bad input", "the fifth sample cannot be read", 4)],
)
def test_a_process_that_fails_ends_the_job(tmp_path: Path, how: str, reason: str, kept: int) -> None:
    start = time.monotonic()
    job = run(2, "fragile", tmp_path / "run", how, logs=tmp_path / "logs")
    assert job.code != 0
    assert f"rank 1 failed and ends the job: {reason}" in job.logs[0], job
    assert time.monotonic() - start < 90  # starting included
    checkpoint = latest_checkpoint(tmp_path / "run")
    assert checkpoint is not None and checkpoint.name == f"step-{kept:08d}"
    assert load_checkpoint(checkpoint)[1]["step"] == kept
