"""Jobs of two processes: collectives, shared frames, sharded optimizer states, shared files, failures."""

import time
from pathlib import Path

import pytest

from opensora.parallel.control import KILLED
from opensora.train.checkpoint import latest_checkpoint, load_checkpoint
from tests.data.material import write_set
from tests.parallel import launch

pytestmark = pytest.mark.slow
FAILURES = {
    "killed in a step": KILLED,
    "killed in a save": KILLED,
    "bad input": "the fifth sample cannot be read",
}


def test_two_processes(place: Path, tmp_path: Path) -> None:
    write_set(tmp_path, 4, broken=(1,))
    job = launch.run(
        2,
        ["-m", "tests.parallel.jobs", "together", 2, place / "model", tmp_path, "5+2", "7+0"],
        tmp_path / "logs",
    )
    assert job.code == 0, job


def test_a_process_that_fails_ends_the_job(tmp_path: Path) -> None:
    """Three jobs at once: each waits until its scheduler gives up on a lost process."""
    start = time.monotonic()
    places = {how: tmp_path / how.replace(" ", "-") for how in FAILURES}
    jobs = {
        how: launch.start(
            2, ["-m", "tests.parallel.jobs", "fragile", place / "run", how], place, MS_NODE_TIMEOUT="10"
        )
        for how, place in places.items()
    }
    for how, reason in FAILURES.items():
        job = launch.finish(jobs[how], places[how])
        assert job.code != 0
        assert f"rank 1 failed and ends the job: {reason}" in job.logs[0], job
        checkpoint = latest_checkpoint(places[how] / "run")
        assert checkpoint is not None and checkpoint.name == "step-00000004"
        assert load_checkpoint(checkpoint)[1]["step"] == 4
    assert time.monotonic() - start < 180  # starting included
