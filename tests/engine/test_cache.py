"""Compiled graphs in files: which graphs share one, and files that are damaged, foreign or too many."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opensora.engine import cache, digest
from opensora.engine import openvino as engine_module
from opensora.engine.block import Block
from opensora.engine.cache import GraphCache, open_cache
from opensora.engine.openvino import OpenVINO
from opensora.nn import F

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
DIGESTS = [f"{number:064x}" for number in range(4)]


@Block
def turned(w: Any, x: Any, factor: float) -> Any:
    return F.silu(F.product(x, w["weight"])) * factor


def network(run: Any, x: Any, factor: float) -> Any:
    for _ in range(12):
        x = run(turned, "a", x, factor)
    return x


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    return {"a.weight": np.random.default_rng(seed).standard_normal((4, 4), np.float32)}


def compute(arrays: dict[str, np.ndarray], factor: float = 2.0, rows: int = 3) -> np.ndarray:
    """By an engine that has compiled nothing yet."""
    return np.asarray(OpenVINO().run(network, arrays, X[:rows], factor))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENSORA_GRAPH_CACHE", str(tmp_path / "graphs"))
    monkeypatch.setattr(digest, "SMALLEST", 10)
    return tmp_path / "graphs"


@pytest.fixture
def compiled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The models that were compiled."""
    core, models = engine_module._core(), []

    class Counting:
        import_model, get_property = core.import_model, core.get_property

        def compile_model(self, model: Any, *arguments: Any) -> Any:
            models.append(model)
            return core.compile_model(model, *arguments)

    monkeypatch.setattr(engine_module, "_core", Counting)
    yield models


def test_a_graph_is_compiled_once_and_computes_the_same_bytes(folder: Path, compiled: list[Any]) -> None:
    first = compute(weights())
    np.testing.assert_array_equal(compute(weights()), first)
    assert len(compiled) == len(list(folder.iterdir())) == 1
    (path,) = folder.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600 and folder.stat().st_mode & 0o777 == 0o700


def test_other_weights_constants_and_shapes_are_other_graphs(folder: Path, compiled: list[Any]) -> None:
    first = compute(weights())
    assert not np.array_equal(compute(weights(1)), first)
    assert not np.array_equal(compute(weights(), 1.0), first)
    np.testing.assert_allclose(compute(weights(), rows=1), first[:1], rtol=1e-5)
    assert len(compiled) == len(list(folder.iterdir())) == 4


def test_graphs_that_are_not_worth_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "SMALLEST", 1000)
    compute(weights())
    monkeypatch.setattr(digest, "SMALLEST", 10)
    monkeypatch.setattr(digest, "LARGEST", 8)
    compute(weights())
    monkeypatch.setattr(digest, "LARGEST", 2**20)
    monkeypatch.setenv("OPENSORA_GRAPH_CACHE", "off")
    compute(weights())
    assert not folder.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
        lambda content: b"something else" + content,
    ],
)
def test_a_damaged_file_is_compiled_again(folder: Path, compiled: list[Any], damage: Any) -> None:
    first = compute(weights())
    (path,) = folder.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    for _ in range(2):
        np.testing.assert_array_equal(compute(weights()), first)
    assert len(compiled) == 2


def test_a_file_that_the_library_refuses_is_compiled_again(folder: Path, compiled: list[Any]) -> None:
    first = compute(weights())
    (path,) = folder.iterdir()
    GraphCache(folder).write(path.stem, b"no graph")
    np.testing.assert_array_equal(compute(weights()), first)
    assert len(compiled) == 2


def test_files_of_others(folder: Path, compiled: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    first = compute(weights())
    (path,) = folder.iterdir()
    path.chmod(0o666)
    np.testing.assert_array_equal(compute(weights()), first)
    assert len(compiled) == 2
    elsewhere = path.rename(folder.parent / "elsewhere")
    path.symlink_to(elsewhere)
    np.testing.assert_array_equal(compute(weights()), first)
    assert len(compiled) == 3 and elsewhere.is_file()
    folder.chmod(0o777)
    np.testing.assert_array_equal(compute(weights()), first)
    assert len(compiled) == 4 and len(caplog.messages) == 1 and "others can write" in caplog.messages[0]


def test_a_folder_that_cannot_be_one(
    folder: Path, compiled: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    folder.write_text("a file of the user")
    compute(weights())
    assert len(compiled) == 1 and folder.read_text() == "a file of the user" and not caplog.messages


def test_the_graphs_that_were_read_longest_ago_go_first(tmp_path: Path) -> None:
    kept = GraphCache(tmp_path, limit=1000)
    (tmp_path / "notes.txt").write_bytes(bytes(5000))
    for age, name in enumerate(DIGESTS[:3]):
        kept.write(name, bytes(250))
        os.utime(tmp_path / f"{name}.graph", (age, age))
    assert kept.read(DIGESTS[0]) == bytes(250)
    kept.write(DIGESTS[3], bytes(250))
    assert [kept.read(name) is not None for name in DIGESTS] == [True, False, True, True]
    kept.write(DIGESTS[1], bytes(2000))
    assert kept.read(DIGESTS[1]) is None
    assert (tmp_path / "notes.txt").is_file()


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def chosen() -> Path | None:
        opened = open_cache()
        return None if opened is None else opened.folder

    monkeypatch.delenv(cache.ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert chosen() == tmp_path / "opensora" / "graphs"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the specification ignores it
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cache.sys, "platform", "linux")
    assert chosen() == tmp_path / "home" / ".cache" / "opensora" / "graphs"
    monkeypatch.setenv(cache.ENVIRONMENT, "off")
    assert chosen() is None
