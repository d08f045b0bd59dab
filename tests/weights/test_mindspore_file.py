"""MindSpore's .ckpt files, against what the installed framework writes and reads."""

from pathlib import Path

import numpy as np
import pytest

from opensora.runtime import mindspore
from opensora.weights import WeightsError
from opensora.weights import mindspore_file as module
from opensora.weights.mindspore_file import MindSporeFile, write_checkpoint

ms = mindspore()
GENERATOR = np.random.default_rng(0)
VALUES = {
    "blocks.0.weight": GENERATOR.standard_normal((3, 4)).astype(np.float32),
    "half": GENERATOR.standard_normal(5).astype(np.float16),
    "scalar": np.array(2.5, np.float32),
    "whole": np.arange(6).reshape(2, 3),
    "flags": np.array([True, False]),
}


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "checksum"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mindspore") / "saved.ckpt"
    tensors = [{"name": name, "data": ms.Tensor(value)} for name, value in VALUES.items()]
    tensors.append({"name": "brain", "data": ms.Tensor([1.0, -2.5], ms.bfloat16)})
    ms.save_checkpoint(
        tensors, str(path), crc_check=request.param, append_dict={"epoch_num": 3, "lr": 0.5, "note": "a text"}
    )
    return path


def test_what_the_framework_writes(saved: Path) -> None:
    file = MindSporeFile(saved)
    assert set(file.entries) == {*VALUES, "brain", "epoch_num", "lr", "note"}
    for name, value in VALUES.items():
        loaded = file.read(name)
        assert loaded.shape == value.shape and loaded.dtype == (
            np.float32 if value.dtype.kind == "f" else value.dtype
        )
        np.testing.assert_array_equal(loaded, value)
    np.testing.assert_array_equal(file.read("brain"), [1.0, -2.5])
    assert file.read("epoch_num") == 3
    with pytest.raises(WeightsError, match="note is stored as str"):
        file.read("note")


def test_what_the_framework_reads_also_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART", 16)
    weights = {name: np.asarray(value, np.float32) for name, value in VALUES.items()} | {
        "empty": np.zeros((0, 2), np.float32)
    }
    with open(tmp_path / "x.ckpt", "wb") as file:
        write_checkpoint(file, weights)
    read = ms.load_checkpoint(str(tmp_path / "x.ckpt"))
    ours = MindSporeFile(tmp_path / "x.ckpt")
    assert list(read) == list(ours.entries) == list(weights)
    for name, value in weights.items():
        np.testing.assert_array_equal(read[name].asnumpy(), value)
        np.testing.assert_array_equal(ours.read(name), value)
    np.testing.assert_array_equal(
        ours.read_rows("blocks.0.weight", np.array([2, 0])), weights["blocks.0.weight"][[2, 0]]
    )
    np.testing.assert_array_equal(ours.read_rows("half", np.array([4])), weights["half"][[4]])


@pytest.mark.parametrize("part", [0.0, 0.05, 0.5, 0.95])
def test_truncated(saved: Path, tmp_path: Path, part: float) -> None:
    data = saved.read_bytes()
    (tmp_path / "x.ckpt").write_bytes(data[: int(len(data) * part)])
    with pytest.raises(WeightsError, match=r"x\.ckpt is truncated, damaged"):
        MindSporeFile(tmp_path / "x.ckpt")


def test_flipped_bytes_load_or_are_refused(saved: Path, tmp_path: Path) -> None:
    original = saved.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(80):
        data = bytearray(original)
        for position in rng.integers(0, len(data), rng.integers(1, 4)):
            data[position] = rng.integers(256)
        (tmp_path / "x.ckpt").write_bytes(data)
        try:
            file = MindSporeFile(tmp_path / "x.ckpt")
            for name in file.entries:
                assert file.read(name).nbytes <= 8 * len(data)
        except WeightsError:
            refused += 1
    assert refused > 40
