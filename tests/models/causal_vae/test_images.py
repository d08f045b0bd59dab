"""Autoencoders of images, sd-vae-ft-mse's kind, frame by frame: parity with diffusers on both engines."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from opensora.models import CausalVAE
from opensora.models.causal_vae.config import CausalVAEConfig, weight_shapes
from opensora.models.convert import Conversion, convert
from opensora.models.spec import ModelSpec
from opensora.weights import WeightsError
from opensora.weights.inflation import inflate
from opensora.weights.vae_2d import open_vae_2d
from tests import reference
from tests.reference.formula import weights_of

REFERENCE = reference.read_json("image_vae/outputs")
CONFIG = reference.read_json("image_vae/config")
SD_VAE = {
    **CONFIG, "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32,
    "sample_size": 256, "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip


def published() -> dict[str, np.ndarray]:
    shapes = {name: tuple(shape) for name, shape in REFERENCE["shapes"].items()}
    return weights_of(shapes, REFERENCE["weights_formula"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The autoencoder in the Hub's layout."""
    return write_image_autoencoder(tmp_path / "image-vae")


def write_image_autoencoder(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    weights = {name: np.ascontiguousarray(value) for name, value in published().items()}
    save_file(weights, folder / "diffusion_pytorch_model.safetensors")
    return folder


def test_the_weights_are_those_of_the_reference() -> None:
    weights = published()
    content = b"".join(weights[name].tobytes() for name in sorted(weights))
    assert hashlib.sha256(content).hexdigest() == REFERENCE["weights_formula"]["sha256"]


@pytest.mark.usefixtures("operator_mode")
@pytest.mark.parametrize("engine", ["mindspore", "openvino"])
def test_parity(engine: str, folder: Path) -> None:
    """Two pictures as two videos, and as two frames of one video: frames do not see one another."""
    found = reference.load("image_vae/outputs")
    vae = CausalVAE.from_pretrained(folder, engine=engine)
    assert vae.config.strides == (1, 4)
    for as_video in (lambda x: x[:, :, None], lambda x: x.transpose(1, 0, 2, 3)[None]):
        pictures, latents = (np.ascontiguousarray(as_video(found[name])) for name in ("input", "z"))
        moments = vae.engine.output(vae.encode(vae.engine.input(pictures)).moments)
        np.testing.assert_allclose(moments, as_video(found["moments"]), rtol=1e-4, atol=1e-5)
        decoded = vae.engine.output(vae.decode(vae.engine.input(latents)))
        np.testing.assert_allclose(decoded, as_video(found["decoded"]), rtol=1e-4, atol=1e-5)


def test_the_shapes_of_sd_vae_ft_mse() -> None:
    config = CausalVAEConfig.from_dict(SD_VAE)
    shapes = weight_shapes(config)
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 83_653_863
    assert (config.strides, config.embed_dim) == ((1, 8), 4)


def test_a_saved_folder_loads_again_and_other_weights_do_not(folder: Path, tmp_path: Path) -> None:
    vae = CausalVAE.from_pretrained(folder, engine="openvino")
    vae.save_pretrained(tmp_path / "saved")
    again = CausalVAE.from_pretrained(tmp_path / "saved", engine="openvino")
    assert again.config == vae.config
    for name, value in vae.weights.items():
        np.testing.assert_array_equal(again.weights[name], value)
    inflated = inflate(open_vae_2d(folder), weight_shapes(vae.config))
    assert all(np.array_equal(inflated[name], value) for name, value in vae.weights.items())
    wrong = {**CONFIG, "layers_per_block": 2}
    (folder / "config.json").write_text(json.dumps(wrong))
    with pytest.raises(WeightsError, match="are not those of its config"):
        CausalVAE.from_pretrained(folder, engine="openvino")


def test_it_takes_the_place_of_a_models_autoencoder(folder: Path, model: Path) -> None:
    """In a training by --ae_path, and in a model folder by `convert`."""
    spec = ModelSpec.find(model)
    assert spec.native_size == (5, 32, 32)
    assert spec.with_vae(folder).native_size == (2, 16, 16)
    with pytest.raises(WeightsError, match=r"vae/config\.json exists: .*--overwrite"):
        convert(folder, model, Conversion())
    with pytest.raises(WeightsError, match="--to mindspore writes single files"):
        convert(folder, model, Conversion(to="mindspore", overwrite=True))
    convert(folder, model, Conversion(overwrite=True))
    assert ModelSpec.find(model).vae.frame_by_frame
    replaced = CausalVAE.from_pretrained(model / "vae", engine="openvino")
    original = CausalVAE.from_pretrained(folder, engine="openvino")
    for name, value in original.weights.items():
        np.testing.assert_array_equal(replaced.weights[name], value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"act_fn": "relu"}, "act_fn = 'relu'"),
        ({"block_out_channels": [8, 12]}, "each must be a multiple of the first"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"]}, "the block 'AttnDownEncoderBlock2D'"),
    ],
)
def test_other_networks_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CausalVAEConfig.from_dict({**CONFIG, **changes})


def test_it_is_not_trained(folder: Path) -> None:
    vae = CausalVAE.from_pretrained(folder)
    with pytest.raises(ValueError, match=r"cannot be trained: .*inflate-vae"):
        vae.forward_with_tape(np.zeros((1, 3, 1, 16, 16), np.float32))
