"""Signals that end a command, and imports that they do not cut short."""

import os
import signal
import threading

import pytest

from opensora.interrupts import ENDING, as_interrupts, deferred


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
