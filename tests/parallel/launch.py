"""Jobs of several processes, as a user starts them."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SECONDS = 420


@dataclass(frozen=True)
class Job:
    """A job that has ended: msrun's exit code and what it printed, and what each rank wrote."""

    code: int
    terminal: str
    logs: list[str]

    def __str__(self) -> str:
        return "\n".join([f"exit code {self.code}", self.terminal, *self.logs])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment() -> dict[str, str]:
    """The interpreter of this process first, one thread a process, the package of this folder."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def start(processes: int, words: Sequence[object], log_dir: Path, **settings: str) -> "subprocess.Popen[str]":
    """Start `msrun` with `python <words>`; settings: more of the environment."""
    count = [f"--worker_num={processes}", f"--local_worker_num={processes}"]
    options = [
        *count,
        f"--master_port={free_port()}",
        f"--log_dir={log_dir}",
        "--join=True",
        "--tail_worker_log=0",
    ]
    command = ["msrun", *options, "python", *map(str, words)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**environment(), **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: "subprocess.Popen[str]", log_dir: Path) -> Job:
    """Wait for a job; where it takes too long, Ctrl-C ends it with its workers."""
    try:
        terminal, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(2)
        terminal, _ = process.communicate(timeout=60)
    logs = [
        path.read_text(encoding="utf-8", errors="replace") for path in sorted(log_dir.glob("worker_*.log"))
    ]
    return Job(process.returncode, terminal, logs)


def run(processes: int, words: Sequence[object], log_dir: Path) -> Job:
    return finish(start(processes, words, log_dir), log_dir)
