"""Strict loading: every kind of damage gives one sentence that names the file."""

import json
import logging
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from opensora.weights import TensorFile, WeightsError, load_config, open_weights, save_weights
from tests.weights.loading import load_weights

STEM = "diffusion_pytorch_model"
WEIGHTS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.bias": np.ones(3, np.float32),
    "n.num_batches_tracked": np.array(7),
}
SHAPES = {name: value.shape for name, value in WEIGHTS.items()}


def write_raw(path: Path, dtype: str, shape: list[int], data: bytes) -> None:
    header = json.dumps({"x": {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file(WEIGHTS, tmp_path / f"{STEM}.safetensors")
    (tmp_path / "config.json").write_text('{"num_layers": 2}')
    return tmp_path


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    save_file({"a.weight": WEIGHTS["a.weight"]}, tmp_path / "model-00001-of-00002.safetensors")
    save_file(
        {name: WEIGHTS[name] for name in ("a.bias", "n.num_batches_tracked")},
        tmp_path / "model-00002-of-00002.safetensors",
    )
    write_index(
        tmp_path,
        {name: f"model-0000{1 if name == 'a.weight' else 2}-of-00002.safetensors" for name in WEIGHTS},
    )
    return tmp_path


def write_index(folder: Path, weight_map: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def assert_same(loaded: dict[str, np.ndarray]) -> None:
    assert list(loaded) == list(WEIGHTS)
    for name, value in WEIGHTS.items():
        assert loaded[name].dtype == value.dtype
        np.testing.assert_array_equal(loaded[name], value)


def test_single_file_and_shards_give_the_same(folder: Path) -> None:
    assert load_config(folder) == {"num_layers": 2}
    assert_same(load_weights(folder, expected=SHAPES))
    assert_same(load_weights(folder / f"{STEM}.safetensors", expected=SHAPES))


def test_shards(sharded: Path) -> None:
    assert_same(load_weights(sharded, "model", expected=SHAPES))


def test_opened_tensors_are_read_when_they_are_asked_for(
    sharded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    original = TensorFile.read
    monkeypatch.setattr(TensorFile, "read", lambda file, name: reads.append(name) or original(file, name))
    source = open_weights(sharded, "model", expected=SHAPES)
    assert list(source) == list(SHAPES) and len(source) == 3 and not reads
    np.testing.assert_array_equal(source["a.bias"], WEIGHTS["a.bias"])
    assert reads == ["a.bias"]


def test_another_name_of_the_same_tensor(folder: Path) -> None:
    expected = {"tied": (3,), "a.weight": (2, 3), "n.num_batches_tracked": ()}
    source = open_weights(folder, expected=expected, aliases={"tied": "a.bias"})
    np.testing.assert_array_equal(source["tied"], WEIGHTS["a.bias"])
    with pytest.raises(WeightsError, match=r"1 missing: tied; 1 unexpected: a\.bias"):
        open_weights(folder, expected=expected, aliases={"tied": "a.other"})


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_rows_of_a_table(tmp_path: Path, dtype: str) -> None:
    table = np.random.default_rng(0).standard_normal((7, 2, 3)).astype(np.float32)
    save_weights(tmp_path, {}, {"before": np.ones(5, np.float32), "table": table}, dtype=dtype)
    source = open_weights(tmp_path, expected={"before": (5,), "table": (7, 2, 3)})
    numbers = np.array([6, 0, 3, 3])
    rows = source.rows("table", numbers)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, source["table"][numbers])
    assert source.rows("table", numbers[:0]).shape == (0, 2, 3)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floating_storage_becomes_float32(tmp_path: Path, dtype: str) -> None:
    save_file({"x": np.array([1.5, -2.25], dtype)}, tmp_path / f"{STEM}.safetensors")
    loaded = load_weights(tmp_path, expected={"x": (2,)})["x"]
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, [1.5, -2.25])


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    write_raw(
        tmp_path / "x.safetensors",
        "BF16",
        [2, 2],
        np.array([0x3F80, 0xC000, 0x3E80, 0x0000], "<u2").tobytes(),
    )
    loaded = load_weights(tmp_path / "x.safetensors", expected={"x": (2, 2)})["x"]
    np.testing.assert_array_equal(loaded, np.array([[1.0, -2.0], [0.25, 0.0]], np.float32))


def test_missing_unexpected_and_misshapen_are_all_named(folder: Path) -> None:
    expected = {"a.weight": (3, 2), "b.weight": (1,), **{f"layer.{i}": (1,) for i in range(12)}}
    with pytest.raises(WeightsError) as error:
        load_weights(folder, expected=expected)
    message = str(error.value)
    assert f"{STEM}.safetensors" in message
    assert "13 missing: b.weight, layer.0, " in message
    assert "layer.8 and 3 more" in message and "layer.9" not in message
    assert "2 unexpected: a.bias, n.num_batches_tracked" in message
    assert "a.weight [2, 3] instead of [3, 2]" in message


def test_ignored_prefixes_are_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "opensora"):
        loaded = load_weights(folder, expected={"a.weight": (2, 3)}, ignore=("a.b", "n."))
    assert list(loaded) == ["a.weight"]
    assert "2 tensors" in caplog.text and "a.bias, n.num_batches_tracked" in caplog.text


@pytest.mark.parametrize("keep", [0, 5, 40, -3])
def test_truncated_file(folder: Path, keep: int) -> None:
    path = folder / f"{STEM}.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"diffusion_pytorch_model\.safetensors is truncated or damaged"):
        load_weights(folder, expected=SHAPES)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(folder: Path, bad: float) -> None:
    damaged = WEIGHTS | {"a.bias": np.array([0, bad, 0], np.float32)}
    save_file(damaged, folder / f"{STEM}.safetensors")
    with pytest.raises(WeightsError, match=r"a\.bias holds NaN or infinite"):
        load_weights(folder, expected=SHAPES)


def test_unreadable_storage_type(tmp_path: Path) -> None:
    write_raw(tmp_path / "x.safetensors", "F8_E4M3", [2], b"\0\0")
    with pytest.raises(WeightsError, match="stored as F8_E4M3"):
        load_weights(tmp_path / "x.safetensors", expected={"x": (2,)})


def test_missing_folder_and_files(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"model folder .*nowhere does not exist"):
        load_config(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match=r"model folder .*nowhere does not exist"):
        load_weights(tmp_path / "nowhere", expected=SHAPES)
    with pytest.raises(WeightsError, match=r"diffusion_pytorch_model\.safetensors does not exist"):
        load_weights(tmp_path, expected=SHAPES)
    with pytest.raises(WeightsError, match=r"has no config\.json: check the path"):
        load_config(tmp_path)
    (tmp_path / "65x512x512").mkdir()
    (tmp_path / "65x512x512" / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="name one of the folders inside it: 65x512x512"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("text", "fault"),
    [("{", "not valid JSON"), ("[1]", "holds a list instead"), ("\xff", "is not UTF-8 text")],
)
def test_damaged_config(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(WeightsError, match=fault):
        load_config(tmp_path)


@pytest.mark.parametrize("name", ["../model.safetensors", "/tmp/model.safetensors", "..", 3])
def test_index_that_points_outside(sharded: Path, name: object) -> None:
    write_index(sharded, {"a.weight": name})
    with pytest.raises(WeightsError, match="not a file of its own folder"):
        load_weights(sharded, "model", expected=SHAPES)


def test_damaged_index(sharded: Path) -> None:
    write_index(sharded, [])
    with pytest.raises(WeightsError, match="has no weight_map"):
        load_weights(sharded, "model", expected=SHAPES)


def test_missing_shard_and_tensor_held_twice(sharded: Path) -> None:
    shard = sharded / "model-00002-of-00002.safetensors"
    save_file(WEIGHTS, shard)
    with pytest.raises(WeightsError, match=r"holds a\.weight more than once"):
        load_weights(sharded, "model", expected=SHAPES)
    shard.unlink()
    with pytest.raises(WeightsError, match=r"model-00002-of-00002\.safetensors does not exist"):
        load_weights(sharded, "model", expected=SHAPES)


def test_flipped_bytes_load_or_are_refused(folder: Path) -> None:
    path = folder / f"{STEM}.safetensors"
    original = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(100):
        data = bytearray(original)
        for position in rng.integers(0, len(data), rng.integers(1, 4)):
            data[position] = rng.integers(256)
        path.write_bytes(data)
        try:
            load_weights(folder, expected=SHAPES)
        except WeightsError:
            refused += 1
    assert 50 < refused < 100
