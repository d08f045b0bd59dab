"""Settings of every test: the environment MindSpore needs, and a working directory that may be littered."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import opensora.runtime  # noqa: F401  sets the environment before any test imports MindSpore


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths, and the dump folders that the framework makes in the working directory, end in the test's own folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def operator_mode() -> Iterator[None]:
    """Blocks run operator by operator: where the compiled ones are not what is tested, compiling them would take most of the time."""
    from opensora.engine.mindspore import set_jit

    set_jit(False)
    yield
    set_jit(True)
