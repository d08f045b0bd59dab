"""Settings of every test: the environment that MindSpore needs, and a working directory of its own."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import opensora.runtime  # noqa: F401  sets the environment before any test imports MindSpore
from tests.wheel import installed, wheel

__all__ = ["installed", "wheel"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in its own folder, where MindSpore writes dump folders, and without the user's cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENSORA_GRAPH_CACHE", "off")


@pytest.fixture(scope="session", autouse=True)
def _signals_of_a_terminal() -> Iterator[None]:
    """Handle the signals that tests send: background jobs of a shell, and nohup, ignore some of them."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def operator_mode() -> Iterator[None]:
    """Run blocks operator by operator, for tests whose time would be spent on compiling."""
    from opensora.engine.mindspore import set_jit

    set_jit(False)
    yield
    set_jit(True)
