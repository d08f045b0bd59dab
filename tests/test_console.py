"""Progress on a terminal and elsewhere."""

import io
import logging

import pytest

from opensora.console import Progress, aligned, printable, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    times = iter([0.0, 30.0, 34.0, 38.0, 42.0, 46.0])
    progress = Progress("video 1 of 2", 5, io.StringIO(), lambda: next(times))
    with caplog.at_level(logging.INFO, "opensora"):
        for _ in range(5):
            progress.step()
    assert caplog.messages == [
        "video 1 of 2: step 1 of 5",
        "video 1 of 2: step 4 of 5, 4.00 s/step, 4 s left",
        "video 1 of 2: step 5 of 5, 4.00 s/step",
    ]


def test_a_bar_on_a_terminal(caplog: pytest.LogCaptureFixture) -> None:
    stream = Terminal()
    progress = Progress("video 1 of 1", 3, stream)
    with caplog.at_level(logging.INFO, "opensora"):
        for _ in range(3):
            progress.step()
    assert "video 1 of 1: 100%" in stream.getvalue() and "3/3" in stream.getvalue()
    assert not caplog.messages


def test_items_are_tracked(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "opensora"):
        assert list(track("ab", "clips")) == ["a", "b"]
    assert caplog.messages[-1].startswith("clips: step 2 of 2, ")


def test_printable_texts_stay_on_their_line_and_do_not_steer() -> None:
    assert printable("a\x1b[2J\r\n\x9b\u202e\u2028\udcff é 象") == r"a\x1b[2J\r\n\x9b\u202e\u2028\udcff é 象"
    assert aligned([["a\n", "1"], ["b", "22"]]) == "a\\n   1\nb    22"
