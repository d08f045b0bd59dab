"""Processes that run cases: a crash, a hang or too much memory ends one process and not the fuzzer."""

import importlib
import logging
import multiprocessing
import time
import warnings
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path

from tests.fuzz.cases import SECONDS, Result, limit_memory, make_case, run_case
from tests.fuzz.readers import Reader

REGISTRY = "tests.fuzz.readers"
START = multiprocessing.get_context("spawn")


def serve(pipe: Connection, seeds: Path, readers: list[str], registry: str) -> None:
    """Run the cases that come through the pipe: (seed, number) -> Result."""
    chosen = _readers(readers, registry)
    limit_memory()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("error")  # a user would see a line of a library
    pipe.send("ready")
    while (job := pipe.recv()) is not None:
        case = make_case(seeds, chosen, *job)
        pipe.send(Result(job[1], case.reader, case.file, run_case(seeds, chosen, case)))


def _readers(names: list[str], registry: str) -> dict[str, Reader]:
    known = importlib.import_module(registry).READERS
    return {name: known[name] for name in names}


class _Worker:
    """A process of the pool, and the case that it runs."""

    def __init__(self, seeds: Path, readers: list[str], registry: str) -> None:
        self.pipe, theirs = START.Pipe()
        self.process = START.Process(target=serve, args=(theirs, seeds, readers, registry), daemon=True)
        self.process.start()
        theirs.close()
        self.number, self.since, self.started = -1, 0.0, False

    def give(self, seed: int, number: int) -> None:
        if not self.started:
            self.started = bool(self.pipe.recv())  # importing the readers takes seconds, which are no case's
        self.number, self.since = number, time.monotonic()
        self.pipe.send((seed, number))

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def run_cases(
    seeds: Path,
    readers: list[str],
    seed: int,
    numbers: Iterable[int],
    registry: str = REGISTRY,
    processes: int = 2,
    seconds: float = SECONDS,
) -> Iterator[Result]:
    """Run cases until `numbers` end; yield the result of each as it comes.

    registry: module with the READERS. seconds: time limit of a case.
    """
    chosen = _readers(readers, registry)
    left = iter(numbers)
    workers = [_Worker(seeds, readers, registry) for _ in range(processes)]
    busy = []
    for worker, number in zip(workers, left, strict=False):
        worker.give(seed, number)
        busy.append(worker)
    try:
        while busy:
            ready = wait([worker.pipe for worker in busy], timeout=1)
            for worker in list(busy):
                late = time.monotonic() - worker.since > seconds
                if worker.pipe not in ready and not late:
                    continue
                answer = _answer(worker) if worker.pipe in ready else f"no end within {seconds:g} s"
                if isinstance(answer, str):  # the process cannot tell which case it was
                    case = make_case(seeds, chosen, seed, worker.number)
                    answer = Result(worker.number, case.reader, case.file, answer)
                yield answer
                busy.remove(worker)
                if late or not worker.process.is_alive():
                    worker.end()
                    workers.remove(worker)
                    worker = _Worker(seeds, readers, registry)
                    workers.append(worker)
                if (following := next(left, None)) is not None:
                    worker.give(seed, following)
                    busy.append(worker)
    finally:
        for worker in workers:
            worker.end()


def _answer(worker: _Worker) -> Result | str:
    """What the worker found, or how it died."""
    try:
        result: Result = worker.pipe.recv()
        return result
    except EOFError:
        worker.process.join()
        return f"the process died with code {worker.process.exitcode}"
