"""Load samples, in worker processes if wanted, and keep count of the files that could not be read."""

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

from opensora.data.samples import SampleSource
from opensora.files import naming, read_json_lines

MIN_READS = 100
"""The rate of failures is taken of at least this many reads, so that early failures do not stop a run."""
PATIENCE = 2.0  # seconds until a worker that was told to end is killed


class Loader:
    """Loads samples by number: `sample(number)`, `samples(numbers)`, `batch(numbers)`. A context manager.

    With workers > 0 that many processes read; several threads may call and share them. Every file that cannot
    be read is written once to `quarantine`, a file of JSON lines. The methods raise ValueError if the
    fraction of such files exceeds `max_bad_rate`, and ChildProcessError if a worker died.
    """

    def __init__(
        self,
        source: SampleSource,
        workers: int = 0,
        quarantine: str | Path | None = None,
        max_bad_rate: float = 0.1,
    ) -> None:
        self.source, self._max_bad_rate = source, max_bad_rate
        self._quarantine = None if quarantine is None else Path(quarantine)
        self._reads = self._failures = 0
        self._known: set[str] = set()
        if self._quarantine is not None:  # an earlier part of the run may have left it
            self._known = {str(line.get("path")) for line in read_json_lines(self._quarantine)}
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
        """Sample `number` of the run."""
        return self.samples([number])[0]

    def samples(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Several samples, read in parallel by the workers."""
        if not self._workers:
            return [self._count(self.source.draw(number)) for number in numbers]
        return [self._count(sample) for sample in self._threads.map(self._from_worker, numbers)]

    def batch(self, numbers: Sequence[int]) -> tuple[dict[str, np.ndarray], list[str]]:
        """A batch of several samples (`SampleSource.join`), and the paths of their files."""
        samples = self.samples(numbers)
        return self.source.join(samples), [path for sample in samples for path in sample["paths"]]

    def _from_worker(self, number: int) -> dict[str, Any]:
        worker = self._idle.get()
        try:
            return worker.draw(number)
        finally:
            self._idle.put(worker)

    def _count(self, sample: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._reads += len(sample["paths"]) + len(sample["rejected"])
            for path, reason in sample["rejected"]:
                self._failures += 1
                self._report(path, reason)
                if self._failures > self._max_bad_rate * max(self._reads, MIN_READS):
                    listed = "" if self._quarantine is None else f", {self._quarantine} lists all"
                    raise ValueError(
                        f"{self._failures} of {self._reads} samples could not be read, more than "
                        f"max_bad_rate {self._max_bad_rate:g} allows (the last: {reason}{listed}): "
                        "repair the data, or raise the rate"
                    )
        return sample

    def _report(self, path: str, reason: str) -> None:
        if self._quarantine is not None and path not in self._known:
            self._known.add(path)
            self._quarantine.parent.mkdir(parents=True, exist_ok=True)
            with naming(self._quarantine), open(self._quarantine, "a", encoding="utf-8") as file:
                file.write(json.dumps({"path": path, "reason": reason}) + "\n")

    def close(self) -> None:
        """End the workers; a worker that is reading is killed after a short wait."""
        for worker in self._workers:
            worker.tell_to_end()
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
    """A process that draws samples.

    It is spawned, because a forked copy of the framework's threads could hang.
    """

    def __init__(self, source: SampleSource, number: int) -> None:
        self._number = number
        self._pipe, theirs = multiprocessing.get_context("spawn").Pipe()
        self._process = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(source, theirs), daemon=True
        )
        self._process.start()
        theirs.close()  # so that the pipe breaks when the process ends

    def draw(self, number: int) -> dict[str, Any]:
        try:
            self._pipe.send(number)
            kind, content = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(PATIENCE)
            raise ChildProcessError(
                f"data worker {self._number} {self._death()} at sample {number}: "
                "continue with fewer workers, or 0"
            ) from error
        if kind != "sample":
            raise (ValueError if kind == "ValueError" else RuntimeError)(content)
        sample: dict[str, Any] = content
        return sample

    def _death(self) -> str:
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"ended with code {code}"
        kill = " (a system does this when memory runs out)" if -code == signal.SIGKILL else ""
        return f"was killed by {signal.Signals(-code).name}{kill}"

    def tell_to_end(self) -> None:
        with contextlib.suppress(OSError):
            self._pipe.send(None)

    def end(self) -> None:
        self._process.join(PATIENCE)
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(source: SampleSource, pipe: Connection) -> None:
    """Draw the samples that are requested until None comes or the main process is gone."""
    # Terminals and schedulers signal the whole group. The run finishes its step first and needs samples for
    # it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
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
