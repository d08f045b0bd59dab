from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest

from opensora.cli import main
from opensora.models.causal_vae.config import CausalVAEConfig, weight_shapes
from opensora.models.causal_vae.model import CausalVAE
from opensora.nn.activations import silu
from opensora.nn.attention import attention
from opensora.nn.convolution import conv2d
from opensora.nn.normalisation import group_norm
from opensora.nn.window import SAME, UNPADDED, ConvWindow
from opensora.weights import WeightsError, save_weights
from opensora.weights.inflation import collapse_time, inflate

CONFIG = CausalVAEConfig(hidden_size=8, hidden_size_mult=(1, 2, 2, 2), num_res_blocks=1, norm_num_groups=4)


def image_weights(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A random image autoencoder of the same widths under latent diffusion's names."""
    weights = {}
    for name, shape in weight_shapes(CONFIG).items():
        if "time_" in name:
            continue
        flat = (
            name
            if name.endswith("downsample.conv.weight") or name.endswith("downsample.conv.bias")
            else "".join(name.rsplit(".conv", 1))
        )
        value = rng.normal(
            1.0 if "norm" in name and name.endswith("weight") else 0.0,
            0.2,
            (*shape[:2], *shape[-2:]) if len(shape) > 1 else shape,
        )
        weights[
            name
            if name.startswith(("encoder.conv_in", "encoder.down.0.block", "encoder.down.1.block"))
            else flat
        ] = value.astype(np.float32)
    return weights


class ImageVAE:
    """The image autoencoder's own forward, after its published description: latent diffusion's
    (arXiv:2112.10752).
    """

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.weights = {name: ms.Tensor(value) for name, value in weights.items()}

    def moments(self, x: Any) -> Any:
        x = self.convolution("encoder.conv_in", x)
        for level in range(4):
            x = self.resnet(f"encoder.down.{level}.block.0", x)
            if level < 3:
                x = self.convolution(f"encoder.down.{level}.downsample.conv", x, ConvWindow((0, 1, 0, 1), 2))
        x = self.convolution(
            "encoder.conv_out", silu(self.norm("encoder.norm_out", self.middle("encoder", x)))
        )
        return self.convolution("quant_conv", x, UNPADDED)

    def decode(self, latents: Any) -> Any:
        x = self.convolution("decoder.conv_in", self.convolution("post_quant_conv", latents, UNPADDED))
        x = self.middle("decoder", x)
        for level in reversed(range(4)):
            for block in range(2):
                x = self.resnet(f"decoder.up.{level}.block.{block}", x)
            if level:
                doubled = np.repeat(np.repeat(x.asnumpy(), 2, 2), 2, 3)
                x = self.convolution(f"decoder.up.{level}.upsample.conv", ms.Tensor(doubled))
        return self.convolution("decoder.conv_out", silu(self.norm("decoder.norm_out", x)))

    def middle(self, half: str, x: Any) -> Any:
        x = self.resnet(f"{half}.mid.block_1", x)
        name, (count, channels, height, width) = f"{half}.mid.attn_1", x.shape
        normed = self.norm(f"{name}.norm", x)
        parts = [
            self.convolution(f"{name}.{part}", normed, UNPADDED).reshape(count, 1, channels, -1)
            for part in "qkv"
        ]
        mixed = (
            attention(*(part.transpose(0, 1, 3, 2) for part in parts))
            .transpose(0, 1, 3, 2)
            .reshape(count, channels, height, width)
        )
        return self.resnet(f"{half}.mid.block_2", x + self.convolution(f"{name}.proj_out", mixed, UNPADDED))

    def resnet(self, name: str, x: Any) -> Any:
        h = self.convolution(f"{name}.conv1", silu(self.norm(f"{name}.norm1", x)))
        h = self.convolution(f"{name}.conv2", silu(self.norm(f"{name}.norm2", h)))
        return h + (
            self.convolution(f"{name}.nin_shortcut", x, UNPADDED)
            if f"{name}.nin_shortcut.weight" in self.weights
            else x
        )

    def norm(self, name: str, x: Any) -> Any:
        return group_norm(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], x.shape[0], 4)

    def convolution(self, name: str, x: Any, window: ConvWindow = SAME) -> Any:
        return conv2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], window)


@pytest.fixture(scope="module")
def image() -> dict[str, np.ndarray]:
    return image_weights(np.random.default_rng(0))


@pytest.mark.slow
@pytest.mark.usefixtures("operator_mode")
@pytest.mark.parametrize("frames", [1, 5])
def test_an_inflated_autoencoder_sees_a_still_picture_as_the_image_autoencoder_does(
    image: dict[str, np.ndarray], frames: int
) -> None:
    vae = CausalVAE(
        CONFIG, {name: ms.Tensor(value) for name, value in inflate(image, weight_shapes(CONFIG)).items()}
    )
    picture = np.random.default_rng(1).uniform(-1, 1, (2, 3, 16, 24)).astype(np.float32)
    original = ImageVAE(image)
    moments = original.moments(ms.Tensor(picture))
    pixels = original.decode(moments[:, :4]).asnumpy()
    posterior = vae.encode(ms.Tensor(np.repeat(picture[:, :, None], frames, 2)))
    found = vae.decode(posterior.mode()).asnumpy()
    assert found.shape[2] == frames
    for frame in range(posterior.moments.shape[2]):
        np.testing.assert_allclose(
            posterior.moments[:, :, frame].asnumpy(),
            moments.asnumpy(),
            rtol=0,
            atol=2e-5 * np.abs(moments.asnumpy()).max(),
        )
    for frame in range(frames):
        np.testing.assert_allclose(found[:, :, frame], pixels, rtol=0, atol=5e-5 * np.abs(pixels).max())


@pytest.mark.slow
@pytest.mark.usefixtures("operator_mode")
def test_weights_of_single_frames_see_still_clips_as_they_saw_the_frame() -> None:
    vae = CausalVAE.initialise(CONFIG, np.random.default_rng(2))
    vae.weights = {
        name: value * 3 if name.endswith("mix_factor") else value for name, value in vae.weights.items()
    }
    picture = np.random.default_rng(1).uniform(-1, 1, (1, 3, 1, 16, 24)).astype(np.float32)
    expected = vae.decode(vae.encode(ms.Tensor(picture)).mode()).asnumpy()
    before = {name: value.asnumpy() for name, value in vae.weights.items()}
    after = collapse_time(before, np.random.default_rng(3))
    again = CausalVAE(CONFIG, {name: ms.Tensor(value) for name, value in after.items()})
    found = again.decode(again.encode(ms.Tensor(np.repeat(picture, 5, 2))).mode()).asnumpy()
    np.testing.assert_allclose(found, np.repeat(expected, 5, 2), rtol=0, atol=1e-4 * np.abs(expected).max())
    assert after.keys() == before.keys() and all(
        after[name].shape == value.shape for name, value in before.items()
    )


def test_weights_of_single_frames_get_taps_that_see_motion() -> None:
    rng = np.random.default_rng(2)
    weights = {
        name: rng.normal(0, 0.2, shape).astype(np.float32) for name, shape in weight_shapes(CONFIG).items()
    }
    collapsed = collapse_time(weights, np.random.default_rng(3))
    again = collapse_time(weights, np.random.default_rng(3))
    for name, value in collapsed.items():
        np.testing.assert_array_equal(value, again[name])
        if value.ndim == 5 and value.shape[2] == 3 and name != "decoder.conv_out.conv.weight":
            assert all(value[:, :, tap].any() for tap in range(3))
    np.testing.assert_array_equal(collapsed["decoder.conv_out.conv.weight"][:, :, :2], 0)


def test_weights_that_do_not_belong_are_named(image: dict[str, np.ndarray]) -> None:
    less = {name: value for name, value in image.items() if name != "decoder.norm_out.bias"}
    with pytest.raises(WeightsError, match=r"decoder\.norm_out\.bias has no counterpart"):
        inflate(less, weight_shapes(CONFIG))
    with pytest.raises(WeightsError, match="extra has no place"):
        inflate({**image, "extra": np.zeros(1)}, weight_shapes(CONFIG))
    with pytest.raises(WeightsError, match=r"encoder\.conv_in\.weight is \[4, 3, 3, 3\] for \[8, 3, 3, 3\]"):
        inflate(
            {**image, "encoder.conv_in.weight": image["encoder.conv_in.weight"][:4]}, weight_shapes(CONFIG)
        )


def test_the_command_makes_a_folder_that_training_starts_from(
    image: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_weights(tmp_path / "image", {}, image)
    save_weights(tmp_path / "config", dict(vars(CONFIG)), {})
    words = [
        "inflate-vae",
        f"--src={tmp_path / 'image'}",
        f"--target={tmp_path / 'video'}",
        f"--model_config={tmp_path / 'config'}",
    ]
    assert main(words) == 0
    vae = CausalVAE.from_pretrained(tmp_path / "video")
    expected = inflate(image, weight_shapes(CONFIG))
    assert all(np.array_equal(vae.weights[name].asnumpy(), value) for name, value in expected.items())
    assert main(words) == 2 and "name a new one" in capsys.readouterr().err


@pytest.mark.parametrize("ending", [".ckpt", ".safetensors"])
def test_the_command_makes_a_file(
    ending: str, image: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_weights(tmp_path / "image", {}, image)
    save_weights(tmp_path / "config", dict(vars(CONFIG)), {})
    words = [
        "inflate-vae",
        f"--src={tmp_path / 'image'}",
        "--target=pretrained/init" + ending,
        f"--model_config={tmp_path / 'config'}",
    ]
    assert main(words) == 0
    vae = CausalVAE.initialise(CONFIG, np.random.default_rng(0))
    vae.load_weights("pretrained/init" + ending)
    expected = inflate(image, weight_shapes(CONFIG))
    assert all(np.array_equal(vae.weights[name].asnumpy(), value) for name, value in expected.items())
    assert main(words) == 2 and main([*words, "--target=init.pt"]) == 2
    shown = capsys.readouterr().err
    assert "name a new one" in shown and "use .safetensors or .ckpt" in shown
