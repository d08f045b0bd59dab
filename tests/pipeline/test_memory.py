"""What a model needs is counted from its files and sizes; what is free is read from the system."""

from pathlib import Path

import pytest

from opensora.models import Tiling
from opensora.pipeline import memory
from opensora.pipeline.memory import FRAMEWORK, UNKNOWN, decoding, estimate, free_memory, weights_size
from opensora.weights import find_model


def test_weights_count_in_float32(session_model: Path) -> None:
    size = weights_size(session_model / "text_encoder")
    file = session_model / "text_encoder" / "model.safetensors"
    assert 0.95 * file.stat().st_size < size < file.stat().st_size


def test_estimate_grows_with_the_video_and_shrinks_with_tiles(session_model: Path) -> None:
    model = find_model(session_model)
    weights = sum(
        weights_size(part) for part in (model.transformer, model.vae, session_model / "text_encoder")
    )
    small, large = estimate(model, (2, 4, 4)), estimate(model, (17, 64, 64))
    assert FRAMEWORK + weights < small < large


def test_decoding_shrinks_with_tiles_and_chunks(session_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, size = find_model(session_model), (17, 64, 64)
    at_once = decoding(model, size)
    assert decoding(model, size, Tiling(size=64, frames=17)) < at_once / 4
    assert decoding(model, (2, 4, 4), Tiling()) == decoding(model, (2, 4, 4))
    # What is stored counts as far as it stays in memory.
    in_memory = decoding(model, size, way="chunked")
    monkeypatch.setattr(memory, "free_memory", lambda: 0)
    assert 0 < decoding(model, size, way="chunked") < in_memory < at_once / 4


def test_free_memory_is_the_smaller_of_machine_and_container(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  2000 kB\nMemAvailable:    1000 kB\n")
    assert free_memory(meminfo, tmp_path) == 1000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("300000\n")
    assert free_memory(meminfo, tmp_path) == 1000 * 1024
    (tmp_path / "memory.max").write_text("500000\n")
    assert free_memory(meminfo, tmp_path) == 200_000
    assert free_memory(tmp_path / "none", tmp_path / "none") == UNKNOWN
    assert 0 < free_memory() < UNKNOWN
