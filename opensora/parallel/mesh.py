"""The mesh of a job: the processes that `msrun` started, as groups of ranks with one task each.

With S ranks per video (sequence) and G per guidance (1 or 2), rank r has the coordinates
sequence = r % S, guidance = r // S % G, data = r // (S * G).
"""

import os
import re
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from opensora import runtime
from opensora.console import printable
from opensora.parallel.collectives import ProcessGroup
from opensora.parallel.control import Control, Hub

ms = runtime.LazyMindSpore()

SCHEDULER = "MS_SCHED"
SECONDS_BETWEEN_LOOKS = 1.0
TIMEOUT = 30.0
"""Seconds that a rank may stand still."""
LONGEST_TIMEOUT = 24 * 3600
SAYS = "opensora: "
FAILED = " failed and ends the job: "
ADDRESS_LENGTH = 128
FRAMEWORK_TIMEOUTS = ("MS_NODE_TIMEOUT", "MS_CPU_COMM_OP_TIMEOUT")
"""The scheduler's for processes without a sign of life, and that of a collective on a CPU, in seconds."""
# Errors of a worker that another job's scheduler rejects, and of a second scheduler on the port.
PORT_IN_USE = ("Repeated registration", "MS_SCHED_PORT is occupied")


@dataclass(frozen=True)
class Mesh:
    """The groups that this rank belongs to. The default is a single process."""

    world: ProcessGroup = field(default_factory=ProcessGroup)
    sequence: ProcessGroup = field(default_factory=ProcessGroup)
    """Ranks that split the frames of the same samples."""
    guidance: ProcessGroup = field(default_factory=ProcessGroup)
    """Ranks that split the two halves of guidance for the same frames."""
    team: ProcessGroup = field(default_factory=ProcessGroup)
    """Ranks that work on the same samples: sequence and guidance together."""

    @property
    def rank(self) -> int:
        return self.world.ranks[self.world.index]

    @property
    def size(self) -> int:
        return self.world.size

    @property
    def data(self) -> tuple[int, int]:
        """The index of this rank's team, and the number of teams; each team has its own samples."""
        return self.rank // self.team.size, self.size // self.team.size

    def processes_here(self) -> int:
        """The number of the job's processes on this machine, which share its memory. Called on every rank."""
        return self.world.agree(socket.gethostname()).count(socket.gethostname())

    @property
    def is_first(self) -> bool:
        """True if this rank writes the files and logs of the job."""
        return self.rank == 0


@contextmanager
def open_mesh(
    sequence: int = 1, guidance: int = 1, use_parallel: bool = False, timeout: float = TIMEOUT
) -> Iterator[Mesh]:
    """Join the job that `msrun` started; without one, yield the mesh of a single process.

    sequence, guidance: ranks per video and per guidance. use_parallel: whether several processes are
    required. timeout: seconds that a process may stand still before the job ends.

    On exit all ranks wait for one another. An error inside ends every process of the job and states its
    reason. Raises ValueError for sizes that do not divide the job, and for a single process if several are
    required.
    """
    if not 1 <= timeout <= LONGEST_TIMEOUT:
        raise ValueError(f"rank_timeout {timeout:g} is out of range: use 1 to {LONGEST_TIMEOUT} seconds")
    if not runtime.launched():
        if sequence * guidance > 1 or use_parallel:
            raise ValueError(
                "use_parallel, sp_size and cfg_parallel need several processes, but this is a single one: "
                "use `msrun --worker_num=N --local_worker_num=N --join=True python -m opensora ...`"
            )
        yield Mesh()
        return
    _watch_launcher()
    for name in FRAMEWORK_TIMEOUTS:  # later than ours, which says what happened
        os.environ[name] = str(int(1.1 * timeout) + 10)
    rank, size = _join_cluster()
    control, hub = _connect(rank, size, timeout)
    try:
        team = sequence * guidance
        if sequence < 1 or size % team:
            raise ValueError(
                f"a job of {size} processes cannot be split into teams of {team}: "
                "choose an sp_size that divides it"
            )
        yield _mesh(rank, size, sequence, team, control)
        control.leave()
    except (ValueError, OSError) as error:
        # Said before the others hear of it: once one of them has ended, msrun kills this process.
        print(f"opensora: {printable(reason(error))}", file=sys.stderr, flush=True)
        control.fail(reason(error), exit_code(error))
        raise SystemExit(exit_code(error)) from error
    except BaseException as error:
        control.fail(reason(error), exit_code(error))
        raise
    finally:
        if hub is not None:
            hub.close()


def _watch_launcher() -> None:
    """Let this process get SIGTERM when `msrun` has gone, which leaves its workers running."""
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os.kill(os.getpid(), signal.SIGTERM)

    if os.environ["MS_ROLE"] != SCHEDULER:  # which ends after the workers
        threading.Thread(target=watch, daemon=True).start()


def reason(error: BaseException) -> str:
    """One sentence about an error, without the framework's call stack; unexpected ones with their type."""
    text = " ".join(re.split(r"\n-{9,}", str(error))[0].split())[:1000]
    return text if isinstance(error, ValueError | OSError) and text else f"{type(error).__name__}: {text}"


def exit_code(error: BaseException) -> int:
    """2 for an error that the user can fix, 130 for Ctrl-C, 1 for others."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, ValueError | OSError) else 1


def _join_cluster() -> tuple[int, int]:
    """(rank, size). The scheduler's process stays here until the job is over, then exits."""
    is_scheduler = os.environ["MS_ROLE"] == SCHEDULER
    try:
        ms.communication.init()
    except RuntimeError as error:
        if is_scheduler and "timed out node" in str(error):
            sys.exit(f"opensora: a process of the job was lost: {_reason_in_logs()}")
        if any(words in str(error) for words in PORT_IN_USE):
            host, port = os.environ.get("MS_SCHED_HOST"), os.environ.get("MS_SCHED_PORT")
            raise ValueError(
                f"port {port} of {host} is used by another job: "
                "choose one between 1024 and 65535 with `msrun --master_port`"
            ) from error
        raise
    if is_scheduler:
        sys.exit(0)
    return ms.communication.get_rank(), ms.communication.get_group_size()


def _reason_in_logs() -> str:
    """What a worker wrote into its log before it ended, as far as the scheduler finds it beside its own."""
    remedy = "see its log, worker_<rank>.log, beside this file"
    try:
        own = Path(os.readlink("/proc/self/fd/1"))
        logs = sorted(own.parent.glob("worker_*.log"))
        texts = [log.read_text(encoding="utf-8", errors="replace") for log in logs]
    except OSError:
        return remedy
    said = [line for text in texts for line in text.splitlines() if line.startswith(SAYS)]
    told = [line for line in said if FAILED in line]  # by those who heard of it
    return (told or said or [remedy])[-1].removeprefix(SAYS)


def _connect(rank: int, size: int, timeout: float) -> tuple[Control, Hub | None]:
    """Rank 0 opens a hub and broadcasts its address in the first collective."""
    hub, text = None, ""
    if rank == 0:
        host, token = _own_address(), secrets.token_hex(16)
        hub = Hub(host, token, timeout)
        text = f"{host} {hub.port} {token}"
    letters = np.zeros(ADDRESS_LENGTH, np.float32)  # a CPU's AllReduce takes float32 only
    letters[: len(text)] = list(text.encode())
    received = ms.ops.AllReduce()(ms.Tensor(letters)).asnumpy()  # the other ranks add zeros
    host, port, token = bytes(received[received > 0].astype(np.uint8)).decode().split()
    return Control(rank, size, (host, int(port)), token, timeout), hub


def _own_address() -> str:
    """The address of this machine in the network of the scheduler."""
    scheduler = os.environ["MS_SCHED_HOST"], int(os.environ["MS_SCHED_PORT"])
    family, kind, _, _, address = socket.getaddrinfo(*scheduler, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)  # sends no packet
        return str(probe.getsockname()[0])


def _mesh(rank: int, size: int, sequence: int, team: int, control: Control) -> Mesh:
    first = rank - rank % team
    place = rank % sequence
    return Mesh(
        world=_group(range(size), rank, size, "world", control),
        sequence=_group(range(rank - place, rank - place + sequence), rank, size, "sequence", control),
        guidance=_group(range(first + place, first + team, sequence), rank, size, "guidance", control),
        team=_group(range(first, first + team), rank, size, "team", control),
    )


def _group(ranks: range, rank: int, size: int, kind: str, control: Control) -> ProcessGroup:
    if len(ranks) == 1:
        return ProcessGroup(ranks, rank)
    if len(ranks) == size:
        return ProcessGroup(ranks, rank, ms.communication.GlobalComm.WORLD_COMM_GROUP, control)
    name = f"{kind}-{ranks[0]}"
    ms.communication.create_group(name, list(ranks))
    return ProcessGroup(ranks, rank, name, control)
