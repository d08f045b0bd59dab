"""Checkpoints of many ranks become one that a single device takes."""

from pathlib import Path

import numpy as np
import pytest

from opensora.cli import main
from opensora.models import LatteT2V
from opensora.runtime import mindspore
from opensora.train.checkpoint import load_checkpoint, save_checkpoint, write_manifest
from opensora.weights.shards import save_shard
from tests.models.published import LATTE_VALUES, RELEASE, assert_same

ms = mindspore()
CONFIG = f"--model_config={RELEASE / '5x32x32'}"


@pytest.fixture
def ranks(tmp_path: Path) -> Path:
    """Files of eight devices of the published version: parameters in four parts, each twice."""
    for rank in range(8):
        part = rank % 4
        split = {
            name: value[len(value) // 4 * part : len(value) // 4 * (part + 1)]
            if value.ndim and len(value) % 4 == 0
            else value
            for name, value in LATTE_VALUES.items()
        }
        folder = tmp_path / "ckpt" / f"rank_{rank}"
        folder.mkdir(parents=True)
        tensors = [{"name": f"network.{name}", "data": ms.Tensor(value)} for name, value in split.items()]
        for name in ("LatteT2V-XL-122-s9.ckpt", "LatteT2V-XL-122-s10.ckpt"):
            ms.save_checkpoint(
                tensors if "s10" in name else tensors[:1], str(folder / name), append_dict={"epoch_num": 1}
            )
    return tmp_path / "ckpt"


def test_published_ranks(ranks: Path) -> None:
    """The published command, with the source as destination; the result loads like every other file."""
    words = [
        "combine",
        "--src",
        str(ranks),
        "--dest",
        str(ranks),
        "--strategy_ckpt",
        "src_strategy.ckpt",
        CONFIG,
    ]
    assert main(words) == 0
    full = ranks / "rank_0" / "full_0.ckpt"
    assert len(ms.load_checkpoint(str(full))) == len(LATTE_VALUES)
    model = LatteT2V.from_pretrained(RELEASE / "5x32x32")
    model.load_weights(full)
    assert_same({name: value.asnumpy() for name, value in model.weights.items()}, LATTE_VALUES)
    assert main(words) == 2


def test_a_lost_or_foreign_rank(ranks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["combine", "--src", str(ranks), "--dest", str(tmp_path / "full")]
    assert main(words) == 2  # without CONFIG the published sizes are meant
    assert (
        "has shape [1], which cannot make [1152]: copy all ranks again, or name the right --model_config"
        in capsys.readouterr().err
    )
    (ranks / "rank_2").rename(tmp_path / "rank_2")
    assert main([*words, CONFIG]) == 2
    assert "lacks rank_2: copy the folders of all 8 ranks" in capsys.readouterr().err
    for rank in range(3, 8):
        (ranks / f"rank_{rank}").rename(tmp_path / f"rank_{rank}")
    assert main([*words, CONFIG]) == 2
    assert "which cannot make" in capsys.readouterr().err
    (ranks / "rank_1" / "LatteT2V-XL-122-s10.ckpt").rename(tmp_path / "other.ckpt")
    (ranks / "rank_1" / "LatteT2V-XL-122-s9.ckpt").rename(tmp_path / "another.ckpt")
    assert main([*words, CONFIG]) == 2
    assert "no .ckpt file of the same name" in capsys.readouterr().err
    assert not (tmp_path / "full").exists()


def test_our_checkpoint(tmp_path: Path) -> None:
    """The optimizer's state is joined, everything else copied, and the folder is complete."""
    rng = np.random.default_rng(0)
    moments = {name: rng.standard_normal((2, 3)).astype(np.float32) for name in ("w.exp_avg", "w.exp_avg_sq")}
    checkpoint = save_checkpoint(
        tmp_path / "run",
        5,
        {"model": {"w": np.ones((2, 3), np.float32)}, "ema": {"w": np.zeros((2, 3), np.float32)}},
        {"x": 1},
    )
    for rank in range(2):
        parts = [
            {
                name.removeprefix("w."): value.ravel()[3 * rank : 3 * rank + 3]
                for name, value in moments.items()
            }
        ]
        save_shard(checkpoint, rank, 2, [{"w": (2, 3)}], parts, {"step": np.array(5)})
    (checkpoint / "manifest.json").unlink()
    write_manifest(checkpoint)

    words = ["combine", f"--src={tmp_path / 'run'}", f"--dest={tmp_path / 'whole'}"]
    assert main(words) == 0
    groups, state = load_checkpoint(tmp_path / "whole")
    assert state == {"step": 5, "x": 1} and set(groups) == {"model", "ema", "optimizer-0-of-1"}
    assert_same(groups["optimizer-0-of-1"], moments | {"step": np.array(5)})
    assert main(words) == 2
    assert main(["combine", f"--src={tmp_path / 'whole'}", f"--dest={tmp_path / 'again'}"]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "whole"]


def test_what_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for source, fault in (
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path, "holds neither a complete checkpoint nor folders rank_0"),
        (tmp_path / "run" / "ckpt", "run is a run, and its checkpoints hold the whole model"),
    ):
        assert main(["combine", f"--src={source}", f"--dest={tmp_path / 'x'}"]) == 2
        assert fault in capsys.readouterr().err
