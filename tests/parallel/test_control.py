"""The control line, with threads in place of processes."""

import queue
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from opensora.parallel.control import KILLED, Control, Hub, Silence, standing_still

Failures = queue.SimpleQueue[tuple[int, int, str, int]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub("127.0.0.1", "secret", 60)
    yield hub
    hub.close()


def join(hub: Hub, size: int, failures: Failures) -> list[Control]:
    def heard(listener: int) -> Any:
        return lambda rank, reason, code: failures.put((listener, rank, reason, code))

    address = "127.0.0.1", hub.port
    return [Control(rank, size, address, "secret", 60, heard(rank)) for rank in range(size)]


def hang_up(ranks: list[Control]) -> None:
    for rank in ranks:
        rank.close()


def at_once(*calls: Any) -> list[Any]:
    """What functions return that wait for one another."""
    results: list[Any] = [None] * len(calls)

    def run(i: int) -> None:
        results[i] = calls[i]()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    return results


def test_ranks_agree_in_groups_of_their_own(hub: Hub) -> None:
    ranks = join(hub, 4, queue.SimpleQueue())
    everything = at_once(*(lambda rank=rank: rank.agree(f"value {rank.rank}") for rank in ranks))
    assert everything == [["value 0", "value 1", "value 2", "value 3"]] * 4
    pairs = at_once(
        *(lambda r=r: r.agree(r.rank, "pair", (r.rank // 2 * 2, r.rank // 2 * 2 + 1)) for r in ranks)
    )
    assert pairs == [[0, 1], [0, 1], [2, 3], [2, 3]]
    at_once(*(rank.leave for rank in ranks))


def test_every_other_rank_hears_of_an_error(hub: Hub) -> None:
    failures: Failures = queue.SimpleQueue()
    ranks = join(hub, 3, failures)
    at_once(*(rank.agree for rank in ranks))
    ranks[1].fail("the disk is full", 2)
    heard = sorted(failures.get(timeout=10) for _ in range(2))
    assert heard == [(0, 1, "the disk is full", 2), (2, 1, "the disk is full", 2)]
    hang_up(ranks)


def test_every_other_rank_hears_of_a_process_that_vanishes(hub: Hub) -> None:
    failures: Failures = queue.SimpleQueue()
    ranks = join(hub, 3, failures)
    at_once(*(rank.agree for rank in ranks))
    ranks[2].close()  # what the kernel does for a process that was killed
    heard = sorted(failures.get(timeout=10) for _ in range(2))
    assert heard == [(0, 2, KILLED, 1), (1, 2, KILLED, 1)]
    hang_up(ranks)


def test_every_other_rank_hears_of_one_that_stands_still() -> None:
    hub, failures = Hub("127.0.0.1", "secret", 1), queue.SimpleQueue()
    address = "127.0.0.1", hub.port
    ranks = [Control(rank, 3, address, "secret", 1, lambda *what: failures.put(what)) for rank in range(2)]
    with socket.create_connection(address) as suspended:
        suspended.sendall(b'{"rank": 2, "token": "secret"}\n')
        assert [failures.get(timeout=10) for _ in ranks] == [(2, standing_still(1), 1)] * 2
    hang_up(ranks)
    hub.close()


def test_a_hub_that_stands_still_is_noticed() -> None:
    failures: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with socket.create_server(("127.0.0.1", 0)) as suspended:
        rank = Control(1, 2, suspended.getsockname(), "secret", 1, lambda *what: failures.put(what))
        assert failures.get(timeout=10) == (0, standing_still(1), 1)
        rank.close()


def test_a_process_that_stood_still_itself_accuses_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    silence = Silence(10)
    silence.hear(1)
    silence.hear(2)
    now = 50.0  # the machine was suspended
    assert silence.find() is None
    now = 55.0
    silence.hear(2)
    assert silence.find() is None
    now = 60.0
    assert silence.find() is None
    now = 61.0
    assert silence.find() == 1
    silence.forget(1)
    assert silence.find() is None


def test_nobody_hears_of_a_rank_that_left_with_the_others(hub: Hub) -> None:
    failures: Failures = queue.SimpleQueue()
    ranks = join(hub, 2, failures)
    at_once(*(rank.leave for rank in ranks))
    with pytest.raises(queue.Empty):
        failures.get(timeout=0.3)


def test_strangers_are_turned_away(hub: Hub) -> None:
    failures: Failures = queue.SimpleQueue()
    address = "127.0.0.1", hub.port
    stranger = Control(0, 1, address, "guess", 60, lambda *what: failures.put((0, *what)))
    assert failures.get(timeout=10)[1:] == (0, KILLED, 1)
    stranger.close()
    (rank,) = join(hub, 1, failures)
    assert rank.agree(5) == [5]
    rank.leave()
