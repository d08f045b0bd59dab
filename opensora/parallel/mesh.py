"""From the processes that `msrun` started to groups of ranks, each group with one task.

Rank r of a job with S ranks to a sample's frames (sequence) and G to its guidance (1, or 2 halves) has the place
sequence = r % S, guidance = r // S % G, data = r // (S * G).
"""

import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from opensora import runtime
from opensora.parallel.collectives import ProcessGroup, ms
from opensora.parallel.control import Control, Hub

SCHEDULER = "MS_SCHED"
ADDRESS_LENGTH = 128
# What workers say whom another job's scheduler turns away, and what a second scheduler says.
PORT_IN_USE = ("Repeated registration", "MS_SCHED_PORT is occupied")


@dataclass(frozen=True)
class Mesh:
    """The groups that this rank belongs to. Without arguments: one process, alone."""

    world: ProcessGroup = field(default_factory=ProcessGroup)
    sequence: ProcessGroup = field(default_factory=ProcessGroup)
    """Ranks that share the frames of the same samples."""
    guidance: ProcessGroup = field(default_factory=ProcessGroup)
    """Ranks that share the halves of guidance of the same frames."""
    team: ProcessGroup = field(default_factory=ProcessGroup)
    """Sequence and guidance together: ranks that work on the same samples."""

    @property
    def rank(self) -> int:
        return self.world.ranks[self.world.index]

    @property
    def size(self) -> int:
        return self.world.size

    @property
    def data(self) -> tuple[int, int]:
        """(which, of how many): the teams, each of which works on samples of its own."""
        return self.rank // self.team.size, self.size // self.team.size

    def processes_here(self) -> int:
        """Processes of the job on this machine, which share its memory. All ranks ask together."""
        return self.world.agree(socket.gethostname()).count(socket.gethostname())

    @property
    def is_first(self) -> bool:
        """Whether this rank writes what the whole job writes once."""
        return self.rank == 0


@contextmanager
def open_mesh(sequence: int = 1, guidance: int = 1, use_parallel: bool = False) -> Iterator[Mesh]:
    """Join the job that `msrun` started, or be alone where it did not; leave it together with all others.

    An error inside ends every process of the job, with its reason. Raises ValueError for sizes that do not divide the job, and for a
    process alone where several are asked for.
    """
    if not runtime.launched():
        if sequence * guidance > 1 or use_parallel:
            raise ValueError(
                "several processes are asked for (use_parallel, sp_size or cfg_parallel), but this is one alone: start the command with "
                "`msrun --worker_num=N --local_worker_num=N --join=True python -m opensora ...`"
            )
        yield Mesh()
        return
    rank, size = _join_cluster()
    control, hub = _connect(rank, size)
    try:
        team = sequence * guidance
        if sequence < 1 or size % team:
            raise ValueError(
                f"a job of {size} processes cannot be split into teams of {team}: choose sp_size so that it divides"
            )
        yield _mesh(rank, size, sequence, team, control)
        control.leave()
    except BaseException as error:
        control.fail(reason(error), exit_code(error))
        raise
    finally:
        if hub is not None:
            hub.close()


def reason(error: BaseException) -> str:
    """One sentence about an error, its kind included where a person did not write it."""
    text = " ".join(str(error).split())[:1000]
    return text if isinstance(error, ValueError | OSError) and text else f"{type(error).__name__}: {text}"


def exit_code(error: BaseException) -> int:
    """2 for what a user can mend, 130 for Ctrl-C, 1 for the rest."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, ValueError | OSError) else 1


def _join_cluster() -> tuple[int, int]:
    """(rank, size). The scheduler's process stays in here until the job is over, and ends."""
    is_scheduler = os.environ["MS_ROLE"] == SCHEDULER
    try:
        ms.communication.init()
    except RuntimeError as error:
        if is_scheduler and "timed out node" in str(error):
            sys.exit(
                "opensora: a process of the job was lost: its log, worker_<rank>.log beside this file, says why"
            )
        if any(words in str(error) for words in PORT_IN_USE):
            raise ValueError(
                f"port {os.environ.get('MS_SCHED_PORT')} of {os.environ.get('MS_SCHED_HOST')} is used by another job: choose another "
                "one between 1024 and 65535 with `msrun --master_port`"
            ) from error
        raise
    if is_scheduler:
        sys.exit(0)
    return ms.communication.get_rank(), ms.communication.get_group_size()


def _connect(rank: int, size: int) -> tuple[Control, Hub | None]:
    """Rank 0 opens a hub and tells all others where it is, by the first collective."""
    hub, text = None, ""
    if rank == 0:
        host, token = _own_address(), secrets.token_hex(16)
        hub = Hub(host, token)
        text = f"{host} {hub.port} {token}"
    letters = np.zeros(ADDRESS_LENGTH, np.float32)  # the CPU adds nothing else
    letters[: len(text)] = list(text.encode())
    heard = ms.ops.AllReduce()(ms.Tensor(letters)).asnumpy()
    host, port, token = bytes(heard[heard > 0].astype(np.uint8)).decode().split()
    return Control(rank, size, (host, int(port)), token), hub


def _own_address() -> str:
    """The address of this machine on the way to the scheduler's."""
    scheduler = os.environ["MS_SCHED_HOST"], int(os.environ["MS_SCHED_PORT"])
    family, kind, _, _, address = socket.getaddrinfo(*scheduler, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)  # sends nothing
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


def _group(ranks: Any, rank: int, size: int, kind: str, control: Control) -> ProcessGroup:
    if len(ranks) == 1:
        return ProcessGroup(ranks, rank)
    if len(ranks) == size:
        return ProcessGroup(ranks, rank, ms.communication.GlobalComm.WORLD_COMM_GROUP, control)
    name = f"{kind}-{ranks[0]}"
    ms.communication.create_group(name, list(ranks))
    return ProcessGroup(ranks, rank, name, control)
