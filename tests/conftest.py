"""Settings of every test: the environment that MindSpore needs, and a working directory of its own."""

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


@pytest.fixture
def operator_mode() -> Iterator[None]:
    """Run blocks operator by operator, for tests whose time would be spent on compiling."""
    from opensora.engine.mindspore import set_jit

    set_jit(False)
    yield
    set_jit(True)
