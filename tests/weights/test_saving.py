"""Saving is readable by the format's own library, exact where it can be, and complete or absent."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from opensora.files import write_atomic
from opensora.weights import WeightsError, load_config, save_weights
from opensora.weights.files import from_bfloat16, to_bfloat16
from tests.weights.loading import load_weights

GENERATOR = np.random.default_rng(0)
WEIGHTS = {
    "odd": GENERATOR.standard_normal((3, 5)).astype(np.float32),
    "scalar": np.float32(1.5).reshape(()),
    "empty": np.zeros((0, 4), np.float32),
    "n.num_batches_tracked": np.array([1, 2, 3]),
    "flags.num_batches_tracked": np.array([True, False]),
    "strided": np.arange(24, dtype=np.float32).reshape(4, 6)[:, ::2],
}
SHAPES = {name: value.shape for name, value in WEIGHTS.items()}


def test_round_trip_and_the_library_reads_it(tmp_path: Path) -> None:
    config = {"num_layers": 2, "sample_size": [8, 8], "dropout": None}
    save_weights(tmp_path / "new" / "model", config, WEIGHTS, stem="model")
    assert load_config(tmp_path / "new" / "model") == config
    path = tmp_path / "new" / "model" / "model.safetensors"
    for loaded in (load_weights(tmp_path / "new" / "model", "model", expected=SHAPES), load_file(path)):
        for name, value in WEIGHTS.items():
            assert loaded[name].dtype == value.dtype and loaded[name].shape == value.shape
            np.testing.assert_array_equal(loaded[name], value)
    with safe_open(path, "np") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize(("dtype", "relative"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_half_storage(tmp_path: Path, dtype: str, relative: float) -> None:
    save_weights(tmp_path, {}, WEIGHTS, dtype=dtype)
    loaded = load_weights(tmp_path, expected=SHAPES)
    np.testing.assert_allclose(loaded["odd"], WEIGHTS["odd"], rtol=relative)
    np.testing.assert_array_equal(loaded["n.num_batches_tracked"], WEIGHTS["n.num_batches_tracked"])
    save_weights(tmp_path, {}, loaded, dtype=dtype)
    again = load_weights(tmp_path, expected=SHAPES)
    np.testing.assert_array_equal(again["odd"], loaded["odd"])


def test_bfloat16_rounds_to_nearest_even() -> None:
    step = 2.0**-7  # distance of neighbours above 1
    values = np.array([1 + step / 2, 1 + 3 * step / 2, 1 + 0.51 * step, -1 - step / 2], np.float32)
    np.testing.assert_array_equal(from_bfloat16(to_bfloat16(values)), [1, 1 + 2 * step, 1 + step, -1])


@pytest.mark.parametrize(
    ("value", "dtype", "fault"),
    [
        (np.nan, "float32", "NaN or infinite"),
        (1e6, "float16", "cannot hold"),
        (3.4e38, "bfloat16", "cannot hold"),
    ],
)
def test_values_that_cannot_be_stored(tmp_path: Path, value: float, dtype: str, fault: str) -> None:
    with pytest.raises(WeightsError, match=fault):
        save_weights(tmp_path, {}, {"x": np.array([value], np.float32)}, dtype=dtype)
    assert not list(tmp_path.iterdir())


def test_unknown_storage_type(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'int8' is unknown: choose one of float32, float16, bfloat16"):
        save_weights(tmp_path, {}, WEIGHTS, dtype="int8")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_atomic(path, lambda file: file.write(json.dumps({"step": 1}).encode()))

    def interrupted(file: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, interrupted)
    assert json.loads(path.read_text()) == {"step": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["state.json"]
