"""The optimizer's state in as many files as there were ranks."""

from pathlib import Path

import numpy as np
import pytest

from opensora.weights import TensorFile, WeightsError, save_tensors
from opensora.weights.shards import ShardedState, save_shard

SHAPES = [
    {"a.bias": (3,), "scale": ()},
    {"a.weight": (2, 5), "b.weight": (4, 1, 3), "empty": (0, 2)},
    {"first.weight": (3, 3)},
]
STATE = {
    f"{name}.{moment}": np.random.default_rng(len(name)).standard_normal(shape).astype(np.float32) * factor
    for shapes in SHAPES
    for name, shape in shapes.items()
    for moment, factor in (("exp_avg", 1), ("exp_avg_sq", 2))
    if (name, moment) != ("first.weight", "exp_avg_sq")  # Muon has no second moment
}


def save(folder: Path, ranks: int) -> None:
    """Each group's vector is padded to parts of equal length."""
    for rank in range(ranks):
        parts: list[dict[str, np.ndarray]] = [{} for _ in SHAPES]
        for moment in ("exp_avg", "exp_avg_sq"):
            for group, shapes in zip(parts, SHAPES, strict=True):
                if f"{next(iter(shapes))}.{moment}" not in STATE:
                    continue
                vector = np.concatenate([STATE[f"{name}.{moment}"].ravel() for name in shapes])
                length = -(-len(vector) // ranks)
                padded = np.pad(vector, (0, length * ranks - len(vector)))
                group[moment] = padded[rank * length : (rank + 1) * length]
        save_shard(folder, rank, ranks, SHAPES, parts, {"step": np.array(7)})


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_parts_become_the_whole(tmp_path: Path, ranks: int) -> None:
    save(tmp_path, ranks)
    state = ShardedState(tmp_path)
    assert set(state) == {*STATE, "step"} and state["step"] == 7
    save_tensors(tmp_path / "whole.safetensors", state)
    whole = TensorFile(tmp_path / "whole.safetensors")
    assert whole.entries["step"].dtype == "I64"
    for name, value in STATE.items():
        np.testing.assert_array_equal(whole.read(name), value)


def test_parts_that_do_not_belong_together(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no optimizer-<rank>-of-<ranks>"):
        ShardedState(tmp_path)
    save(tmp_path, 3)
    (tmp_path / "optimizer-1-of-3.safetensors").rename(tmp_path / "away")
    with pytest.raises(WeightsError, match=r"lacks optimizer-1-of-3\.safetensors"):
        ShardedState(tmp_path)
    (tmp_path / "away").rename(tmp_path / "optimizer-1-of-3.safetensors")
    save_shard(tmp_path, 1, 3, SHAPES[:1], [{"exp_avg": np.zeros(2, np.float32)}], {})
    with pytest.raises(WeightsError, match="differ in their layout"):
        ShardedState(tmp_path)
    save_shard(tmp_path, 1, 3, SHAPES, [{"exp_avg": np.zeros(1, np.float32)}] * 2, {})
    with pytest.raises(
        WeightsError, match=r"the parts of exp_avg\.0 hold 5 of 4|the parts of exp_avg\.1 hold"
    ):
        ShardedState(tmp_path)
    save(tmp_path, 2)
    with pytest.raises(WeightsError, match=r"holds files of runs with \[2, 3\] ranks"):
        ShardedState(tmp_path)
