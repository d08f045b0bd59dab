"""Signals that end a command, and imports that they do not cut short."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import opensora
from opensora import interrupts
from opensora.interrupts import ENDING, as_interrupts, as_python_does, deferred


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_interrupts_and_the_handlers_return(number: int) -> None:
    before = [signal.getsignal(other) for other in ENDING]
    with pytest.raises(KeyboardInterrupt), as_interrupts():
        os.kill(os.getpid(), number)
    assert [signal.getsignal(other) for other in ENDING] == before


@pytest.mark.parametrize("number", ENDING)
def test_a_deferred_signal_interrupts_at_the_end(number: int) -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), deferred():
        os.kill(os.getpid(), number)
        reached = True
    assert reached


def test_other_threads_handle_no_signals() -> None:
    def enter() -> None:
        with as_interrupts(), deferred():
            entered.append(True)

    entered: list[bool] = []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [True]


def interrupted_import(program: str) -> subprocess.CompletedProcess[str]:
    """Runs `program`, whose import of NumPy receives Ctrl-C."""
    Path("numpy.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n"
    )
    Path(program).write_text("import opensora.cli\n")
    place = {"PYTHONPATH": os.pathsep.join([os.getcwd(), str(Path(opensora.__file__).parents[1])])}
    return subprocess.run(
        [sys.executable, program], capture_output=True, text=True, env=os.environ | place, timeout=60
    )


def test_ctrl_c_during_the_imports_of_a_command_is_no_traceback() -> None:
    result = interrupted_import("opensora")
    assert (result.returncode, result.stderr) == (130, "opensora: interrupted\n")


def test_a_program_that_imports_the_package_keeps_its_handler() -> None:
    assert "KeyboardInterrupt" in interrupted_import("mine.py").stderr


def test_processes_of_a_launcher_raise_as_python_does() -> None:
    before = signal.signal(signal.SIGINT, interrupts._exit)
    try:
        with pytest.raises(KeyboardInterrupt), as_python_does():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
