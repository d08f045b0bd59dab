import json
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from opensora.engine.mindspore import Forward
from opensora.models.causal_vae.config import CausalVAEConfig, decoder_layers, encoder_layers, weight_shapes
from opensora.models.causal_vae.model import CausalVAE, Posterior, chain
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.weights import WeightsError
from tests import reference

# The layout of the release at its least width, and the layout of v1.0, the reference class's defaults.
TINY = CausalVAEConfig(hidden_size=32, hidden_size_mult=(1, 1, 1, 1), num_res_blocks=1)
DEFAULT = CausalVAEConfig.from_dict(reference.read_json("vae_v10/config"))
TAPS = {"enc": "encoder", "dec": "decoder"}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release folder as published: with weights of the training loss in the file."""
    folder = tmp_path_factory.mktemp("vae")
    tensors = load_file(reference.FOLDER / "vae" / "weights.safetensors")
    save_file(
        {**tensors, "loss.logvar": np.zeros((), np.float16)}, folder / "diffusion_pytorch_model.safetensors"
    )
    (folder / "config.json").write_text((reference.FOLDER / "vae" / "config.json").read_text())
    return folder


@pytest.fixture(scope="module")
def vae(release: Path) -> CausalVAE:
    vae = CausalVAE.from_pretrained(release)
    vae.policy = VAEPolicy(chunked=False)  # the compiled blocks; test_chunked.py is about the other way
    return vae


@pytest.fixture(scope="module")
def on_openvino(release: Path) -> CausalVAE:
    vae = CausalVAE.from_pretrained(release, engine="openvino")
    vae.policy = VAEPolicy(chunked=False)
    return vae


class Recorder(Forward):
    """Runs blocks and keeps their outputs by prefix."""

    def __init__(self, weights: dict[str, Any]) -> None:
        super().__init__(weights)
        self.outputs: dict[str, Any] = {}

    def __call__(self, block: Any, prefix: str | tuple[str, ...], *inputs: Any) -> Any:
        output = super().__call__(block, prefix, *inputs)
        self.outputs[str(prefix)] = output
        return output


def tiny(seed: int = 0, config: CausalVAEConfig = TINY) -> CausalVAE:
    """With noise on every weight, since fresh residual branches end in zeros."""
    rng = np.random.default_rng(seed)
    vae = CausalVAE.initialise(config, rng)
    vae.weights = {
        name: ms.Tensor(value.asnumpy() + 0.05 * rng.standard_normal(value.shape, np.float32))
        for name, value in vae.weights.items()
    }
    return vae


def video(frames: int, size: int = 8, batch: int = 1, seed: int = 1) -> ms.Tensor:
    return ms.Tensor(
        np.random.default_rng(seed).uniform(-1, 1, (batch, 3, frames, size, size)).astype(np.float32)
    )


def loss_of_output(reconstruction: Any, posterior: Posterior) -> Any:
    return (reconstruction * reconstruction).mean() + 0.1 * posterior.kl().sum()


def assert_close(actual: Any, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual.asnumpy(), expected, rtol=1e-4, atol=1e-4)


def assert_is_the_reference(vae: CausalVAE, case: str) -> None:
    tensors = {
        name.removeprefix(f"{case}."): value
        for name, value in reference.load("vae/full").items()
        if name.startswith(f"{case}.")
    }
    posterior = vae.encode(ms.Tensor(tensors["input"]))
    latents = posterior.sample(ms.Tensor(tensors["noise"]))
    assert_close(posterior.moments, tensors["moments"])
    assert_close(latents, tensors["z"])
    assert_close(vae.decode(latents), tensors["decoded"])
    np.testing.assert_allclose(posterior.kl().asnumpy(), tensors["kl"], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["video", "image"])
def test_numbers_are_the_reference(vae: CausalVAE, case: str) -> None:
    assert_is_the_reference(vae, case)


@pytest.mark.parametrize("case", ["video", "image", "wide"])
def test_numbers_on_openvino_are_the_reference(on_openvino: CausalVAE, case: str) -> None:
    assert_is_the_reference(on_openvino, case)


@pytest.mark.usefixtures("operator_mode")
@pytest.mark.parametrize(
    "case",
    ["video", pytest.param("image", marks=pytest.mark.slow), pytest.param("wide", marks=pytest.mark.slow)],
)
def test_numbers_are_the_reference_operator_by_operator(vae: CausalVAE, case: str) -> None:
    assert_is_the_reference(vae, case)


@pytest.mark.slow
@pytest.mark.usefixtures("operator_mode")
def test_every_stage_is_the_reference(vae: CausalVAE) -> None:
    tensors = reference.load("vae/full")
    run = Recorder(vae.weights)
    groups = vae.config.norm_num_groups
    chain(run, encoder_layers(vae.config), groups, ms.Tensor(tensors["video.input"]))
    chain(run, decoder_layers(vae.config), groups, ms.Tensor(tensors["video.z"]))
    taps = [name for name in tensors if ".tap." in name]
    assert len(taps) == 7
    for name in taps:
        half, rest = name.removeprefix("video.tap.").split(".", 1)
        assert_close(run.outputs[f"{TAPS[half]}.{rest}"], tensors[name][0].swapaxes(0, 1))


def test_the_weights_are_those_of_the_release() -> None:
    published = {
        name: tuple(shape) for name, shape in reference.read_json("extras/causalvae_v11_keys").items()
    }
    assert weight_shapes(CausalVAEConfig()) == {
        name: shape for name, shape in published.items() if not name.startswith("loss.")
    }


def test_the_config_of_the_release_differs_from_the_defaults_in_width_only() -> None:
    config = CausalVAEConfig.from_dict(reference.read_json("vae/config"))
    assert config == CausalVAEConfig(hidden_size=32, hidden_size_mult=(1, 2, 1, 1))
    assert config.strides == (4, 8)


def test_an_unknown_block_is_named() -> None:
    with pytest.raises(ValueError, match=r"'Upsample'.*one of .*SpatialUpsample2x"):
        CausalVAEConfig.from_dict({"decoder_spatial_upsample": ["", "Upsample", "Upsample", "Upsample"]})


def test_weights_of_the_training_loss_are_passed_over(release: Path, vae: CausalVAE) -> None:
    assert list(vae.weights) == list(weight_shapes(vae.config))


def test_what_was_saved_loads_again(vae: CausalVAE, tmp_path: Path) -> None:
    vae.save_pretrained(tmp_path / "saved")
    again = CausalVAE.from_pretrained(tmp_path / "saved")
    assert again.config == vae.config
    assert all(
        np.array_equal(again.weights[name].asnumpy(), value.asnumpy()) for name, value in vae.weights.items()
    )
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["encoder_temporal_downsample"] == ["", "TimeDownsampleRes2x", "TimeDownsampleRes2x", ""]


def test_half_precision_storage_keeps_what_it_can_hold(vae: CausalVAE, tmp_path: Path) -> None:
    vae.save_pretrained(tmp_path, dtype="float16")
    again = CausalVAE.from_pretrained(tmp_path)
    assert all(
        np.array_equal(again.weights[name].asnumpy(), value.asnumpy()) for name, value in vae.weights.items()
    )


def test_weights_that_do_not_fit_the_config_are_named(release: Path) -> None:
    with pytest.raises(WeightsError, match=r"missing: .*encoder\.down\.0\.block\.2"):
        CausalVAE.from_pretrained(release, num_res_blocks=3)


@pytest.mark.slow
@pytest.mark.usefixtures("operator_mode")
@pytest.mark.parametrize(
    ("frames", "latent_frames"), [(1, 1), (2, 1), (4, 1), (5, 2), (8, 2), (9, 3), (16, 4), (17, 5)]
)
def test_frames_to_latents_and_back(frames: int, latent_frames: int) -> None:
    vae, clip = tiny(), video(frames)
    latents = vae.encode(clip).mode()
    assert latents.shape == (1, 4, latent_frames, 1, 1) == vae.latent_shape(clip.shape)
    assert vae.decode(latents).shape == (1, 3, 4 * latent_frames - 3, 8, 8)


@pytest.mark.slow
@pytest.mark.usefixtures("operator_mode")
@pytest.mark.parametrize("config", [TINY, DEFAULT], ids=["release", "default"])
def test_a_batch_is_its_videos_one_by_one(config: CausalVAEConfig) -> None:
    vae, clips = tiny(config=config), video(5, size=16, batch=2)
    moments = vae.encode(clips).moments.asnumpy()
    decoded = vae.decode(ms.Tensor(moments[:, :4])).asnumpy()
    for i in range(2):
        np.testing.assert_allclose(
            vae.encode(clips[i : i + 1]).moments.asnumpy(), moments[i : i + 1], rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(
            vae.decode(ms.Tensor(moments[i : i + 1, :4])).asnumpy(), decoded[i : i + 1], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("size", [(12, 8), (8, 20)])
def test_sizes_off_the_stride_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(
        ValueError, match=f"the frames are {size[0]}x{size[1]}: height and width must be multiples of 8"
    ):
        tiny().encode(ms.Tensor(np.zeros((1, 3, 1, *size), np.float32)))


def test_the_posterior_clamps_its_log_variance_and_is_the_formula() -> None:
    rng = np.random.default_rng(2)
    mean, logvar = rng.normal(0, 1, (2, 1, 4, 2, 3, 2))
    logvar.flat[:2] = -50, 40
    noise = rng.normal(0, 1, mean.shape).astype(np.float32)
    posterior = Posterior(ms.Tensor(np.concatenate((mean, logvar), 1).astype(np.float32)))
    clamped = np.clip(logvar, -30, 20)
    np.testing.assert_allclose(posterior.logvar.asnumpy(), clamped, rtol=1e-6)
    np.testing.assert_allclose(posterior.mode().asnumpy(), mean, rtol=1e-6)
    np.testing.assert_allclose(
        posterior.sample(ms.Tensor(noise)).asnumpy(), mean + np.exp(clamped / 2) * noise, rtol=1e-5, atol=1e-6
    )
    kl = 0.5 * (mean**2 + np.exp(clamped) - 1 - clamped).sum((1, 2, 3))
    np.testing.assert_allclose(posterior.kl().asnumpy(), kl, rtol=1e-5)


# --- gradients: one compilation for all tests ---


@pytest.fixture(scope="module")
def step() -> tuple[CausalVAE, ms.Tensor, ms.Tensor, float, dict[str, np.ndarray]]:
    """A VAE, a video, noise, and the loss and gradients of its compiled backward."""
    vae, clip = tiny(), video(5, size=16)
    noise = ms.Tensor(np.random.default_rng(3).standard_normal(vae.latent_shape(clip.shape), np.float32))
    loss, gradients = vae.value_and_grad(loss_of_output, clip, noise)
    return (
        vae,
        clip,
        noise,
        float(loss.asnumpy()),
        {name: value.asnumpy() for name, value in gradients.items()},
    )


@pytest.mark.slow
def test_every_weight_has_a_gradient(step: Any) -> None:
    vae, _, _, _, gradients = step
    assert {name: value.shape for name, value in gradients.items()} == weight_shapes(vae.config)
    # A bias that a later GroupNorm of one channel a group takes away again has none but for rounding.
    assert all(
        np.isfinite(value).all() and (name.endswith("bias") or value.any())
        for name, value in gradients.items()
    )


@pytest.mark.slow
@pytest.mark.parametrize("part", ["", "mid.attn_1", "mix_factor", "norm"])
@pytest.mark.usefixtures("operator_mode")
def test_gradients_are_finite_differences(step: Any, part: str) -> None:
    vae, clip, noise, _, gradients = step
    names = [name for name in gradients if part in name]
    length = np.sqrt(sum(float(np.square(gradients[name]).sum()) for name in names))
    # Along the gradient itself, where rounding weighs least, the slope is the gradient's length.
    step_size = 3e-4 if length > 1 else 3e-3

    def loss_at(distance: float) -> float:
        moved = {
            name: ms.Tensor(vae.weights[name].asnumpy() + np.float32(distance / length) * gradients[name])
            for name in names
        }
        other = CausalVAE(vae.config, {**vae.weights, **moved})
        posterior = other.encode(clip)
        decoded = other.decode(posterior.sample(noise)).asnumpy().astype(np.float64)
        return float(np.mean(decoded**2) + 0.1 * posterior.kl().asnumpy().astype(np.float64).sum())

    whole, half = ((loss_at(size) - loss_at(-size)) / (2 * size) for size in (step_size, step_size / 2))
    # Extrapolated after Richardson: where the gradient is long, the loss also bends.
    assert (4 * half - whole) / 3 == pytest.approx(length, rel=0.01)


@pytest.mark.slow
@pytest.mark.usefixtures("operator_mode")
def test_gradients_operator_by_operator_are_the_compiled_ones(step: Any) -> None:
    vae, clip, noise, loss, gradients = step
    eager_loss, eager = vae.value_and_grad(loss_of_output, clip, noise)
    assert float(eager_loss.asnumpy()) == pytest.approx(loss, rel=1e-5)
    largest = max(np.abs(value).max() for value in gradients.values())
    for name, value in eager.items():
        np.testing.assert_allclose(
            value.asnumpy(), gradients[name], rtol=1e-4, atol=1e-6 * largest, err_msg=name
        )
