"""Damaged and hostile files on the command line: one sentence, exit code 2, nothing is run or written."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from opensora.cli import main
from tests.models.published import LATTE_VALUES, RELEASE
from tests.weights.crafted import Called, archive, storage, tensor

PART = RELEASE / "5x32x32"
SHARD = "diffusion_pytorch_model-00002-of-00002.safetensors"
INDEX = "diffusion_pytorch_model.safetensors.index.json"


def edit_shard(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], Path]:
    def damage(folder: Path) -> Path:
        tensors = load_file(folder / SHARD)
        change(tensors)
        save_file(tensors, folder / SHARD)
        return folder

    return damage


def edit_index(change: Callable[[dict[str, str]], object]) -> Callable[[Path], Path]:
    def damage(folder: Path) -> Path:
        index = json.loads((folder / INDEX).read_text())
        change(index["weight_map"])
        (folder / INDEX).write_text(json.dumps(index))
        return folder

    return damage


def cut(name: str) -> Callable[[Path], Path]:
    def damage(folder: Path) -> Path:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) * 2 // 3])
        return folder if name == SHARD else folder / name

    return damage


def remove_shard(folder: Path) -> Path:
    (folder / SHARD).unlink()
    return folder


def crafted(
    content: object, values: bytes = bytes(24), compression: int = zipfile.ZIP_STORED, **more: bytes
) -> Callable[[Path], Path]:
    return lambda folder: archive(folder / "crafted.pt", content, values, compression, **more)


X = {"x": tensor(storage())}
NAME = "temporal_transformer_blocks.1.scale_shift_table"
DAMAGES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "truncated safetensors": (cut(SHARD), "is truncated or damaged"),
    "truncated pt": (cut("t2v.pt"), "t2v.pt is truncated or damaged"),
    "truncated ckpt": (cut("t2v.ckpt"), "t2v.ckpt is truncated, damaged"),
    "wrong type": (
        edit_shard(lambda w: w.update({NAME: np.zeros((6, 4), np.int32)})),
        f"1 of another type: {NAME} I32",
    ),
    "wrong shape": (
        edit_shard(lambda w: w.update({NAME: np.zeros((4, 6), np.float32)})),
        f"1 of another shape: {NAME} [4, 6]",
    ),
    "not finite": (
        edit_shard(lambda w: w.update({NAME: np.full((6, 4), np.nan, np.float32)})),
        f"{NAME} holds NaN",
    ),
    "missing key": (edit_shard(lambda w: w.pop(NAME)), f"1 missing: {NAME}"),
    "extra key": (edit_shard(lambda w: w.update(extra=np.zeros(1, np.float32))), "1 unexpected: extra"),
    "missing shard": (remove_shard, f"{SHARD} does not exist"),
    "index that points outside": (
        edit_index(lambda where: where.update({NAME: "../model.safetensors"})),
        "not a file of its own folder",
    ),
    "pickle that runs code": (crafted({"x": Called("os", "system", "touch ran")}), "the global 'os.system'"),
    "zip with a path outside": (crafted(X, **{"../ran": b""}), "a path outside of it"),
    "zip bomb": (crafted(X, bytes(10**7), zipfile.ZIP_DEFLATED), "is compressed or encrypted"),
    "tensor larger than its file": (
        crafted({"x": tensor(storage(), 0, (10**6, 10**6), (0, 0))}),
        "reaches beyond its storage",
    ),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(PART, tmp_path_factory.mktemp("good") / "model"))
    shutil.copy(RELEASE / "t2v.pt", folder)
    assert main(["convert", f"--src={folder / 't2v.pt'}", f"--target={folder / 't2v.ckpt'}"]) == 0
    return folder


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_one_sentence(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    damage, sentence = DAMAGES[name]
    source = damage(Path(shutil.copytree(good, tmp_path / "model")))
    assert main(["convert", "--src", str(source), "--target", "out"]) == 2
    output = capfd.readouterr()
    assert (
        output.err.startswith("opensora: ")
        and sentence in output.err
        and output.err.count("\n") == 1
        and not output.out
    )
    assert not [
        path
        for path in tmp_path.rglob("*")
        if path.is_file() and path.relative_to(tmp_path).parts[0] != "model"
    ]


@pytest.mark.parametrize("suffix", [".pt", ".ckpt"])
def test_every_form_becomes_the_release(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    words = [
        "convert",
        "--src",
        str(good / f"t2v{suffix}"),
        "--target",
        str(tmp_path / "out"),
        "--to",
        "pytorch",
    ]
    assert main(words) == 0
    assert f"LatteT2V, {len(LATTE_VALUES)} tensors" in capsys.readouterr().err
    written = load_file(tmp_path / "out" / "diffusion_pytorch_model.safetensors")
    assert all(np.array_equal(written[name], value) for name, value in LATTE_VALUES.items())
    assert main(words) == 2
    assert "exists: choose another --target, or remove it first" in capsys.readouterr().err
