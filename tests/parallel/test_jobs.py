"""Jobs of two processes: collectives, shared frames, sharded optimizer states, shared files, failures."""

import os
import signal
import time
from pathlib import Path

import pytest

from opensora.parallel.control import KILLED, standing_still
from opensora.train.checkpoint import latest_checkpoint, load_checkpoint
from tests.data.material import write_set
from tests.parallel import launch
from tests.parallel.jobs import TIMEOUT

pytestmark = pytest.mark.slow
FAILURES = {
    "killed in a step": KILLED,
    "killed in a save": KILLED,
    "bad input": "the fifth sample cannot be read",
    "refused by the first": "the fifth sample cannot be read",
    "suspended": standing_still(TIMEOUT),
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
    """Five jobs at once: each waits until its scheduler gives up on a lost process."""
    start = time.monotonic()
    places = {how: tmp_path / how.replace(" ", "-") for how in FAILURES}
    jobs = {
        how: launch.start(2, ["-m", "tests.parallel.jobs", "fragile", place / "run", how], place)
        for how, place in places.items()
    }
    for how, reason in FAILURES.items():
        job = launch.finish(jobs[how], places[how])
        assert job.code != 0
        if how == "refused by the first":
            assert f"opensora: {reason}" in job.logs[0].splitlines(), job
            assert f"rank 0 failed and ends the job: {reason}" in job.logs[1], job
        else:
            assert f"rank 1 failed and ends the job: {reason}" in job.logs[0], job
        assert "a process of the job was lost: rank " in job.terminal and reason in job.terminal, job
        checkpoint = latest_checkpoint(places[how] / "run")
        assert checkpoint is not None and checkpoint.name == "step-00000004"
        assert load_checkpoint(checkpoint)[1]["step"] == 4
    assert time.monotonic() - start < 180  # starting included


def test_workers_stop_when_their_launcher_is_gone(tmp_path: Path) -> None:
    job = launch.start(2, ["-m", "tests.parallel.jobs", "fragile", tmp_path / "run", "slow"], tmp_path)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not metrics.is_file() or not metrics.stat().st_size:
        assert job.poll() is None
        time.sleep(0.1)
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    workers = [pid for pid in children if b"tests.parallel.jobs" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    job.terminate()  # msrun alone, as a container or a scheduler ends it
    job.wait()
    end = time.monotonic() + 120
    while latest_checkpoint(tmp_path / "run") is None and time.monotonic() < end:
        time.sleep(0.2)
    for pid in set(children) - set(workers):  # those that follow the logs stay
        os.kill(int(pid), signal.SIGKILL)
    finished = launch.finish(job, tmp_path)
    checkpoint = latest_checkpoint(tmp_path / "run")
    assert checkpoint is not None and 0 < load_checkpoint(checkpoint)[1]["step"] < 1000, finished
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < end, finished
        time.sleep(0.2)
