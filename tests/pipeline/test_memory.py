"""Pipelines that are closed, and calls for which there is no memory."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opensora import Pipeline
from opensora.engine.openvino import _as_engine_error
from opensora.pipeline.memory import MUCH, GraphMemory


def test_a_closed_pipeline_is_empty(session_model: Path) -> None:
    with Pipeline.from_pretrained(session_model, engine="openvino") as pipe:
        frames = pipe("a cat", steps=1, num_frames=1).frames
        assert frames.shape == (1, 32, 32, 3)
    assert not any(model.is_loaded for model in (pipe.text, pipe.transformer, pipe.vae))
    with pytest.raises(ValueError, match="this pipeline is closed: open another"):
        pipe("a cat")
    pipe.close()


def test_a_call_without_memory_leaves_the_next_one_as_it_was(
    session_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = Pipeline.from_pretrained(session_model, engine="openvino")
    expected = pipe("a cat", steps=1, num_frames=1).frames

    with monkeypatch.context() as patch:
        patch.setattr("opensora.engine.openvino.Program.__call__", _out_of_memory)
        with pytest.raises(MemoryError, match=r"1 image, 32x32, 1 x DPM\+\+2M: memory ran out"):
            pipe("a cat", steps=1, num_frames=1)
    np.testing.assert_array_equal(pipe("a cat", steps=1, num_frames=1).frames, expected)


def _out_of_memory(*_: Any) -> None:
    with _as_engine_error("OpenVINO failed"):
        raise RuntimeError("std::bad_alloc")


def test_graphs_that_stay_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    graphs = GraphMemory()
    with caplog.at_level(logging.WARNING, "opensora"):
        for size in (MUCH, -5, 1, MUCH):
            graphs.add(size)
    assert len(caplog.messages) == 1 and "stay until the process ends" in caplog.messages[0]
