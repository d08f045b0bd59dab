"""Samples made by processes of their own, in whatever order they are asked for; and the account of what could not be read."""

import contextlib
import json
import multiprocessing
import queue
import signal
import threading
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from opensora.data.samples import Source

ENOUGH = 100
"""Reads before their rate of failures means anything: a run stops early only where so many could not be within the rate."""
PATIENCE = 2.0  # seconds until a worker that was asked to end is killed


class Loader:
    """The samples of a run, each a function of its number: `sample(number)` or, several at once, `samples(numbers)`.

    With workers > 0 that many processes read, and calls from several threads share them. What cannot be read is written to
    `quarantine`, a file of json lines, once each; above `max_bad_rate` the run ends: both calls raise ValueError. They raise
    ChildProcessError when a worker died. A context manager: its end is the workers' end.
    """

    def __init__(
        self,
        source: Source,
        workers: int = 0,
        quarantine: str | Path | None = None,
        max_bad_rate: float = 0.1,
    ) -> None:
        self.source, self._max_bad_rate = source, max_bad_rate
        self._quarantine = None if quarantine is None else Path(quarantine)
        self._reads = self._failures = 0
        self._known: set[str] = set()
        if self._quarantine is not None and self._quarantine.is_file():  # the run continues
            for line in self._quarantine.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(json.JSONDecodeError):  # a full disk cut it off
                    self._known.add(json.loads(line)["path"])
        self._lock = threading.Lock()
        self._workers = [_Worker(source, number) for number in range(workers)]
        self._idle: queue.Queue[_Worker] = queue.Queue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(max(1, workers))

    def __len__(self) -> int:
        """Samples of an epoch."""
        return len(self.source)

    def sample(self, number: int) -> dict[str, Any]:
        """The `number`-th draw of the run."""
        return self.samples([number])[0]

    def samples(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Several draws, made side by side by the workers."""
        if not self._workers:
            return [self._account(self.source.draw(number)) for number in numbers]
        return [self._account(sample) for sample in self._threads.map(self._from_worker, numbers)]

    def batch(self, numbers: Sequence[int]) -> tuple[dict[str, np.ndarray], list[str]]:
        """Several draws put together (`Source.join`), and the paths of what they hold."""
        samples = self.samples(numbers)
        return self.source.join(samples), [path for sample in samples for path in sample["paths"]]

    def _from_worker(self, number: int) -> dict[str, Any]:
        worker = self._idle.get()
        try:
            return worker.draw(number)
        finally:
            self._idle.put(worker)

    def _account(self, sample: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._reads += len(sample["paths"]) + len(sample["rejected"])
            for path, reason in sample["rejected"]:
                self._failures += 1
                self._report(path, reason)
                if self._failures > self._max_bad_rate * max(self._reads, ENOUGH):
                    seen = "" if self._quarantine is None else f", {self._quarantine} lists all"
                    raise ValueError(
                        f"{self._failures} of {self._reads} samples could not be read, more than max_bad_rate {self._max_bad_rate:g} "
                        f"allows (the last: {reason}{seen}): repair the data, or raise the rate"
                    )
        return sample

    def _report(self, path: str, reason: str) -> None:
        if self._quarantine is not None and path not in self._known:
            self._known.add(path)
            self._quarantine.parent.mkdir(parents=True, exist_ok=True)
            with open(self._quarantine, "a", encoding="utf-8") as file:
                file.write(json.dumps({"path": path, "reason": reason}) + "\n")

    def close(self) -> None:
        """End the workers; those that read a sample now are not waited for long."""
        for worker in self._workers:
            worker.ask_to_end()
        for worker in self._workers:
            worker.end()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "Loader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Worker:
    """A process that draws, and its end of the pipe. It is spawned: a copy of a process with the framework's threads could hang."""

    def __init__(self, source: Source, number: int) -> None:
        self._number = number
        self._pipe, theirs = multiprocessing.get_context("spawn").Pipe()
        self._process = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(source, theirs), daemon=True
        )
        self._process.start()
        theirs.close()  # so that the pipe ends with the process

    def draw(self, number: int) -> dict[str, Any]:
        try:
            self._pipe.send(number)
            kind, content = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(PATIENCE)
            raise ChildProcessError(
                f"data worker {self._number} {self._death()} at sample {number}: continue with fewer workers, or 0"
            ) from error
        if kind != "sample":
            raise (ValueError if kind == "ValueError" else RuntimeError)(content)
        sample: dict[str, Any] = content
        return sample

    def _death(self) -> str:
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"ended with code {code}"
        kill = " (what a system does that is out of memory)" if -code == signal.SIGKILL else ""
        return f"was killed by {signal.Signals(-code).name}{kill}"

    def ask_to_end(self) -> None:
        with contextlib.suppress(OSError):
            self._pipe.send(None)

    def end(self) -> None:
        self._process.join(PATIENCE)
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(source: Source, pipe: Connection) -> None:
    """Draw what is asked for until None comes, or until the asking process is gone."""
    # Signals of the terminal and of a scheduler go to the whole group; the run finishes its step first, and needs its samples.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):
        while (number := pipe.recv()) is not None:
            try:
                answer: tuple[str, Any] = "sample", source.draw(number)
            except ValueError as error:
                answer = "ValueError", str(error)
            except Exception:
                answer = "error", traceback.format_exc()
            pipe.send(answer)
