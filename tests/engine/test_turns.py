"""Threads take turns in the order in which they came."""

import threading
import time

import pytest

from opensora.engine.turns import MINDSPORE, Turns, take_mindspore, taking_turns


def wait_for(turns: Turns, length: int) -> None:
    """Until so many threads have or await their turn."""
    while len(turns._queue) < length:
        time.sleep(0.001)


def test_first_come_first_served() -> None:
    turns, order = Turns(), []

    def work(number: int) -> None:
        with turns.turn(), turns.turn():  # a thread that has its turn may take it again
            order.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    with turns.turn():
        for number, thread in enumerate(threads, 2):
            thread.start()
            wait_for(turns, number)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4] and not turns._queue


def test_who_gives_up_leaves_the_queue() -> None:
    turns, outcome = Turns(), []

    def give_up() -> None:
        raise KeyError("given up")

    def waits() -> None:
        with pytest.raises(KeyError, match="given up"), turns.turn(give_up):
            outcome.append("had its turn")

    with turns.turn():
        thread = threading.Thread(target=waits)
        thread.start()
        thread.join()
    with pytest.raises(ZeroDivisionError), turns.turn():
        raise ZeroDivisionError
    with turns.turn():
        assert not outcome and len(turns._queue) == 1


def test_an_engine_in_reserve_joins_the_call() -> None:
    take_mindspore()  # outside of a call
    assert not MINDSPORE._queue
    with taking_turns(Turns(), {"openvino"}):
        with taking_turns(Turns(), {"openvino"}):
            take_mindspore()
        assert len(MINDSPORE._queue) == 1
    assert not MINDSPORE._queue
