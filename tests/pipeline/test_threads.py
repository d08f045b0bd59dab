"""Pipelines in threads, event loops and forked processes; calls that are cancelled or interrupted."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opensora import Cancelled, Pipeline
from opensora.engine import ENGINES, open_engine

SIZES = [{"num_frames": 1}, {"num_frames": 5}, {"num_frames": 1, "width": 48}]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, operator_mode: None) -> Iterator[str]:
    return request.param


def call(pipe: Pipeline, number: int) -> np.ndarray:
    return pipe("a cat", seed=number, steps=1, **SIZES[number % 3]).frames


@pytest.mark.slow
def test_threads_give_the_sequential_bytes(session_model: Path, engine: str) -> None:
    first, second, third = (Pipeline.from_pretrained(session_model, engine=engine) for _ in range(3))
    expected = [call(first, number) for number in range(6)]
    with ThreadPoolExecutor(4) as pool:
        shared = pool.map(lambda number: call(second, number), range(6))
        apart = pool.map(lambda number: call((first, third)[number % 2], number), range(6))
        for found in (list(shared), list(apart)):
            assert all(np.array_equal(one, two) for one, two in zip(found, expected, strict=True))

    async def gather() -> list[np.ndarray]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(None, call, second, n) for n in range(3)))

    assert all(np.array_equal(one, two) for one, two in zip(asyncio.run(gather()), expected, strict=False))


def test_cancelled_calls_leave_the_next_ones_as_they_were(session_model: Path, engine: str) -> None:
    pipe = Pipeline.from_pretrained(session_model, engine=engine)
    expected = call(pipe, 0)
    outcome: list[Any] = []

    def wait() -> None:
        with pytest.raises(Cancelled) as caught:
            call(pipe, 0)
        outcome.append(caught.value)

    waiting = threading.Thread(target=wait)

    def cancel(step: int, *_: Any) -> None:
        if step == 2:
            waiting.start()
            while len(pipe._calls) < 2:
                pass
            pipe.cancel()

    with pytest.raises(Cancelled) as caught:
        pipe(["a cat", "a dog"], steps=1, num_frames=1, callback=cancel)
    assert caught.value.latents.shape == (2, 4, 1, 4, 4)
    waiting.join()
    assert outcome[0].latents is None and not pipe._calls
    np.testing.assert_array_equal(call(pipe, 0), expected)

    def interrupt(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        pipe("a cat", steps=2, callback=interrupt)
    np.testing.assert_array_equal(call(pipe, 0), expected)


def test_ctrl_c_while_mindspore_computes() -> None:
    """It answers with SIGTERM to its own process, which would end a program that does not handle it."""
    engine = open_engine("mindspore")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with pytest.raises(KeyboardInterrupt):
        engine.run(lambda run: os.kill(os.getpid(), signal.SIGTERM), {})
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    received = []
    signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        engine.run(lambda run: os.kill(os.getpid(), signal.SIGTERM), {})
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert received == [signal.SIGTERM]  # of a program that handles it


FORKS = """
import os, sys
from opensora import Pipeline

pipe = Pipeline.from_pretrained(sys.argv[1], engine=sys.argv[2])
pipe("a cat", steps=1, num_frames=1)
child = os.fork()
if not child:
    for engine in ("mindspore", "openvino"):
        try:
            (pipe if engine == sys.argv[2] else Pipeline.from_pretrained(sys.argv[1], engine=engine))("a cat")
        except RuntimeError as error:
            print(error)
    sys.stdout.flush()
    sys.exit(7) if sys.argv[2] == "openvino" else os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_forked_child_is_told_to_be_spawned(session_model: Path, engine: str) -> None:
    process = subprocess.run(
        [sys.executable, "-c", FORKS, str(session_model), engine], capture_output=True, text=True, timeout=100
    )
    lines = process.stdout.splitlines()
    assert len(lines) == 3 and lines[2] == "7", process.stderr
    assert all(line.endswith("start processes with multiprocessing's 'spawn'") for line in lines[:2])
