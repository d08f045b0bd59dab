import threading

import pytest

from opensora.data.read_ahead import read_ahead


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_reading_ahead_keeps_the_order_the_errors_and_the_bound(workers: int) -> None:
    started = []
    lock = threading.Lock()

    def read(item: int) -> int:
        with lock:
            started.append(item)
        if item == 4:
            raise ValueError("four")
        return item * item

    results = []
    for number, (item, result) in enumerate(read_ahead(read, range(8), workers)):
        assert len(started) <= number + max(workers, 1)
        try:
            results.append((item, result()))
        except ValueError as error:
            results.append((item, str(error)))
    assert results == [(0, 0), (1, 1), (2, 4), (3, 9), (4, "four"), (5, 25), (6, 36), (7, 49)]
