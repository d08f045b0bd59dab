"""Which files are taken for a source: every kind of folder and file, and sentences for what is none."""

import json
from pathlib import Path

import numpy as np
import pytest

from opensora.weights import WeightsError, open_file, trained_text_encoder, weight_files
from opensora.weights.mindspore_file import MindSporeFile, write_checkpoint
from opensora.weights.torch_file import TorchFile
from tests.weights.crafted import good, safetensors
from tests.weights.loading import load_weights

X = {"x": (2, 3)}


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("present", "stem", "taken"),
    [
        (["model.safetensors", "pytorch_model.bin"], "model", "model.safetensors"),
        (["pytorch_model.bin", "config.json"], "model", "pytorch_model.bin"),
        (["diffusion_pytorch_model.bin"], "diffusion_pytorch_model", "diffusion_pytorch_model.bin"),
        ([], "diffusion_pytorch_model", "diffusion_pytorch_model.safetensors"),
        (["causalvae_488.ckpt"], "diffusion_pytorch_model", "causalvae_488.ckpt"),
        (["a.ckpt", "b.ckpt"], "diffusion_pytorch_model", "diffusion_pytorch_model.safetensors"),
        (
            ["manifest.json", "model.safetensors", "ema.safetensors"],
            "diffusion_pytorch_model",
            "ema.safetensors",
        ),
        (["manifest.json", "model.safetensors"], "diffusion_pytorch_model", "model.safetensors"),
        (
            ["checkpoints/step-00000002/manifest.json", "checkpoints/step-00000003/model.safetensors"],
            "diffusion_pytorch_model",
            "checkpoints/step-00000002/model.safetensors",
        ),
    ],
)
def test_folders(tmp_path: Path, present: list[str], stem: str, taken: str) -> None:
    assert weight_files(touch(tmp_path, *present), stem) == [tmp_path / taken]


def test_a_text_encoder_that_was_trained_with_a_transformer(tmp_path: Path) -> None:
    step = "run/checkpoints/step-00000002"
    names = ("manifest.json", "model.safetensors", "text_encoder.safetensors")
    touch(tmp_path, *(f"{step}/{name}" for name in names))
    text = tmp_path / step / "text_encoder.safetensors"
    assert trained_text_encoder(tmp_path / "run") == text
    touch(tmp_path, f"{step}/ema.safetensors")
    assert trained_text_encoder(tmp_path / "run") is None  # of the average there is none
    touch(tmp_path, f"{step}/text_encoder_ema.safetensors")
    for source in ("run", step, f"{step}/ema.safetensors"):
        assert trained_text_encoder(tmp_path / source) == text.with_name("text_encoder_ema.safetensors")
    assert trained_text_encoder(tmp_path / step / "model.safetensors") == text
    touch(tmp_path, "model/diffusion_pytorch_model.safetensors", "plain/model.safetensors")
    touch(tmp_path, "plain/text_encoder.safetensors")
    for source in ("model", "plain/model.safetensors"):
        assert trained_text_encoder(tmp_path / source) is None


def test_files_are_told_by_their_first_bytes(tmp_path: Path) -> None:
    """PyTorch Lightning and MindSpore share the ending .ckpt."""
    assert isinstance(open_file(good(tmp_path / "a.ckpt")), TorchFile)
    with open(tmp_path / "b.ckpt", "wb") as file:
        write_checkpoint(file, {"x": np.ones((2, 3), np.float32)})
    assert isinstance(open_file(tmp_path / "b.ckpt"), MindSporeFile)
    for name in ("a.ckpt", "b.ckpt"):
        assert load_weights(tmp_path / name, expected=X)["x"].shape == (2, 3)


def test_bin_shards(tmp_path: Path) -> None:
    good(tmp_path / "pytorch_model-00001-of-00002.bin")
    index = tmp_path / "pytorch_model.bin.index.json"

    def name_shards(**shards: object) -> None:
        index.write_text(json.dumps({"weight_map": shards}))

    name_shards(x="pytorch_model-00001-of-00002.bin")
    np.testing.assert_array_equal(load_weights(tmp_path, "model", expected=X)["x"], [[0, 1, 2], [3, 4, 5]])
    name_shards(x="pytorch_model-00001-of-00002.bin", y="pytorch_model-00002-of-00002.bin")
    with pytest.raises(WeightsError, match=r"pytorch_model-00002-of-00002\.bin does not exist"):
        load_weights(tmp_path, "model", expected=X)
    for outside in ("../other.bin", "/tmp/other.bin", "model.safetensors", 3, ["x.bin"]):
        name_shards(x=outside)
        with pytest.raises(WeightsError, match="is not a file of its own folder: download it again"):
            load_weights(tmp_path, "model", expected=X)
    index.write_text("[" * 100000)
    with pytest.raises(WeightsError, match="is not valid JSON"):
        load_weights(tmp_path, "model", expected=X)


def test_faults(tmp_path: Path) -> None:
    touch(tmp_path, "run/checkpoints/step-00000001/model.safetensors", "notes.txt")
    faults = {
        "run folder .*run has no complete checkpoint": "run",
        r"notes\.txt is not a file of weights": "notes.txt",
        r"nothing\.pt does not exist": "nothing.pt",
        "model folder .*nowhere does not exist": "nowhere",
    }
    for fault, name in faults.items():
        with pytest.raises(WeightsError, match=fault):
            load_weights(tmp_path / name, expected=X)
    with pytest.raises(
        WeightsError, match=r"not a file of weights: name one that ends in \.safetensors, \.pt"
    ):
        open_file(tmp_path / "notes.txt")


def test_whole_numbers_are_not_weights(tmp_path: Path) -> None:
    safetensors(tmp_path / "x.safetensors", "I64", [2, 3], bytes(48))
    with pytest.raises(WeightsError, match=r"1 of another type: x I64 instead of F32, F16 or BF16"):
        load_weights(tmp_path / "x.safetensors", expected=X)
