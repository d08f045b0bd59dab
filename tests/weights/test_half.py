"""Weights in 16 bits: rounded once, to what a file of that type would hold."""

from pathlib import Path

import numpy as np
import pytest

from opensora.weights import HalfStorage, WeightsError, open_weights, save_weights


@pytest.mark.parametrize(("dtype", "stored"), [("fp16", "float16"), ("bf16", "bfloat16")])
def test_values_are_those_of_a_file_in_16_bits(dtype: str, stored: str, tmp_path: Path) -> None:
    values = {
        "a": np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32),
        "b": np.zeros(0, np.float32),
    }
    save_weights(tmp_path, {}, values, dtype=stored)
    read = open_weights(tmp_path, expected={"a": (3, 4), "b": (0,)})
    halves = HalfStorage(values, dtype)
    assert list(halves) == ["a", "b"] and len(halves) == 2
    for name in values:
        assert halves[name].dtype == np.float32
        np.testing.assert_array_equal(halves[name], read[name])
    assert (halves["a"] != values["a"]).any()
    assert sum(value.nbytes for value in halves._halves.values()) == 24


def test_too_large_for_half_precision() -> None:
    values = {"a": np.array([1.0, -70000.0], np.float32)}
    with pytest.raises(
        WeightsError, match="a has values beyond 65504, which fp16 cannot hold: keep the weights as bf16"
    ):
        HalfStorage(values, "fp16")
    assert HalfStorage(values, "bf16")["a"][1] == pytest.approx(-70000, rel=1 / 256)
