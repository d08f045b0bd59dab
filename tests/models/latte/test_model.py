from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from safetensors.numpy import load_file

from opensora.engine import ENGINES, open_engine
from opensora.engine.mindspore import set_jit
from opensora.engine.weights import OnDemand
from opensora.models import LatteT2V
from opensora.models.latte.config import LatteConfig, weight_shapes
from opensora.weights import WeightsError
from tests import reference

ABSOLUTE, RELATIVE = 2e-5, 1e-4
VIDEO = reference.read_json("latte/video")
ROPE = reference.read_json("latte/rope")
COMPRESS = reference.read_json("latte_compress/cases")
TINY = LatteConfig(
    num_layers=2,
    num_attention_heads=2,
    attention_head_dim=4,
    cross_attention_dim=8,
    caption_channels=6,
    sample_size=(4, 4),
    video_length=3,
)


def build(name: str, engine: str = "mindspore", **overrides: Any) -> LatteT2V:
    config = LatteConfig.from_dict({**reference.read_json(f"{name}/config"), **overrides})
    opened = open_engine(engine)
    return LatteT2V(config, opened.weights(reference.load(f"{name}/weights")), opened)


def tensors(name: str) -> dict[str, Any]:
    return {key: ms.Tensor(value) for key, value in reference.load(name).items()}


def call(model: LatteT2V, tensors: dict[str, Any], case: str, **options: Any) -> np.ndarray:
    names = ("hidden_states", "timestep", "encoder_hidden_states", "encoder_attention_mask", "attention_mask")
    inputs: Any = [tensors.get(f"{case}.{name}") for name in names]
    return model(*inputs, **options).asnumpy()


def assert_close(actual: np.ndarray, expected: Any, absolute: float = ABSOLUTE) -> None:
    np.testing.assert_allclose(actual, expected.asnumpy(), rtol=RELATIVE, atol=absolute)


@pytest.fixture(scope="module")
def model() -> LatteT2V:
    return build("latte")


@pytest.fixture(scope="module", params=ENGINES)
def on_each_engine(request: pytest.FixtureRequest) -> LatteT2V:
    return build("latte", request.param)


@pytest.fixture(scope="module")
def video() -> dict[str, Any]:
    return tensors("latte/video")


@pytest.fixture(scope="module")
def joint() -> dict[str, Any]:
    return tensors("latte/joint")


@pytest.fixture(scope="module")
def tiny() -> LatteT2V:
    """Every weight is random, so that no zero hides an error."""
    rng = np.random.default_rng(0)
    return LatteT2V(TINY, {name: noise(rng, *shape) for name, shape in weight_shapes(TINY).items()})


def noise(rng: np.random.Generator, *shape: int) -> Any:
    return ms.Tensor(0.3 * rng.standard_normal(shape).astype(np.float32))


def tiny_inputs(batch: int = 2, frames: int = 3, height: int = 4, width: int = 4) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(1)
    return (
        noise(rng, batch, 4, frames, height, width),
        ms.Tensor([3.0, 700.5][:batch], ms.float32),
        noise(rng, batch, 5, 6),
    )


def mean_of_squares(output: Any) -> Any:
    return (output * output).mean()


@pytest.mark.parametrize("case", [name for name in VIDEO if name != "latmask_fullframe"])
def test_output_is_the_references(on_each_engine: LatteT2V, video: dict[str, Any], case: str) -> None:
    temporal = VIDEO[case]["call_kwargs"].get("enable_temporal_attentions", True)
    assert_close(call(on_each_engine, video, case, temporal=temporal), video[f"{case}.output"])


def test_wholly_masked_frame_is_within_the_rounding_of_its_scores(
    on_each_engine: LatteT2V, video: dict[str, Any]
) -> None:
    assert_close(
        call(on_each_engine, video, "latmask_fullframe"), video["latmask_fullframe.output"], absolute=2e-3
    )


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", ROPE)
def test_rotary_and_scaled_positions_are_the_references(case: str, engine: str) -> None:
    cases = tensors("latte/rope")
    assert_close(
        call(build("latte", engine, **ROPE[case]["config_overrides"]), cases, case), cases[f"{case}.output"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", COMPRESS)
def test_compressed_keys_are_the_references(case: str, engine: str) -> None:
    cases = tensors("latte_compress/cases")
    assert_close(
        call(build("latte_compress", engine, **COMPRESS[case]["config_overrides"]), cases, case),
        cases[f"{case}.output"],
    )


def joint_inputs(joint: dict[str, Any], mask: str) -> Any:
    names = (
        "hidden_states",
        "timestep",
        "encoder_hidden_states",
        "encoder_attention_mask",
        f"attention_mask_{mask}",
    )
    return tuple(joint[name] for name in names)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "mask"), [("ckpt", "ones"), ("ckpt_padded", "padded")])
def test_joint_training_has_the_references_output_loss_and_gradients(
    model: LatteT2V, joint: dict[str, Any], case: str, mask: str
) -> None:
    outputs = []

    def loss_of_output(output: Any) -> Any:
        outputs.append(output)
        return ((output - joint["target"]) ** 2).mean()

    loss, gradients = model.value_and_grad(loss_of_output, *joint_inputs(joint, mask), num_images=2)
    assert_close(outputs[0].asnumpy(), joint[f"{case}.output"])
    np.testing.assert_allclose(float(loss), float(joint[f"{case}.loss"]), rtol=1e-5)
    assert set(gradients) == set(model.weights) - {"caption_projection.y_embedding"}
    start = f"{case}.grad."
    for name in (key.removeprefix(start) for key in joint if key.startswith(start)):
        expected = joint[start + name].asnumpy()
        assert np.abs(gradients[name].asnumpy() - expected).max() <= 1e-4 * np.abs(expected).max(), name


def test_time_positions_are_added_in_joint_training_though_the_reference_forgot_them_without_checkpointing(
    model: LatteT2V, joint: dict[str, Any]
) -> None:
    output = model.forward_with_tape(*joint_inputs(joint, "ones"), num_images=2)[0].asnumpy()
    assert_close(output, joint["ckpt.output"])
    assert np.abs(output - joint["nockpt.output"].asnumpy()).max() > 1.0


@pytest.mark.parametrize(("case", "mask"), [("ckpt", "ones"), ("ckpt_padded", "padded")])
def test_a_video_and_images_on_each_engine(
    on_each_engine: LatteT2V, joint: dict[str, Any], case: str, mask: str
) -> None:
    output = on_each_engine(*joint_inputs(joint, mask), num_images=2)
    assert_close(output.asnumpy(), joint[f"{case}.output"])


@pytest.mark.slow
def test_operator_mode_gives_the_same_output_and_gradients(tiny: LatteT2V, operator_mode: None) -> None:
    inputs = tiny_inputs()
    loss, gradients = tiny.value_and_grad(mean_of_squares, *inputs)
    set_jit(True)
    compiled_loss, compiled = tiny.value_and_grad(mean_of_squares, *inputs)
    np.testing.assert_allclose(float(loss), float(compiled_loss), rtol=1e-5)
    assert set(gradients) == set(compiled)
    for name, value in compiled.items():
        expected = value.asnumpy()
        # The gradient by the bias of a key is zero but for rounding: it shifts all scores of a query alike.
        atol = 1e-8 if name.endswith("to_k.bias") else 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(gradients[name].asnumpy(), expected, rtol=0, atol=atol, err_msg=name)


def test_operator_mode_gives_the_references_output(
    model: LatteT2V, video: dict[str, Any], operator_mode: None
) -> None:
    assert_close(call(model, video, "latmask"), video["latmask.output"])


def test_gradients_are_those_of_finite_differences(tiny: LatteT2V) -> None:
    latents, timestep, text = tiny_inputs()
    output, tape = tiny.forward_with_tape(latents, timestep, text)
    (by_text,) = tape.gradients([(output, ms.ops.ones_like(output))], wanted=[text])[1]
    direction = np.random.default_rng(3).standard_normal(text.shape).astype(np.float32)
    step = 1e-2

    def sum_at(distance: float) -> float:
        return float(
            tiny(latents, timestep, ms.Tensor(text.asnumpy() + distance * direction))
            .asnumpy()
            .astype(np.float64)
            .sum()
        )

    slope = (8 * (sum_at(step) - sum_at(-step)) - (sum_at(2 * step) - sum_at(-2 * step))) / (12 * step)
    np.testing.assert_allclose(float((by_text.asnumpy() * direction).sum()), slope, rtol=1e-3)


def test_precomputed_text_keys_and_values_give_the_same_output(
    on_each_engine: LatteT2V, video: dict[str, Any]
) -> None:
    model = on_each_engine
    text = video["padmask.encoder_hidden_states"]
    text_kv = model.text_keys_values(text)
    assert len(text_kv) == model.config.num_layers
    latents, timestep, mask = (
        video[f"padmask.{name}"] for name in ("hidden_states", "timestep", "encoder_attention_mask")
    )
    precomputed = model(latents, timestep, None, mask, text_kv=text_kv).asnumpy()
    np.testing.assert_array_equal(precomputed, model(latents, timestep, text, mask).asnumpy())


def test_masks_of_ones_change_nothing(tiny: LatteT2V) -> None:
    inputs = tiny_inputs()
    masked = tiny(*inputs, ms.ops.ones((2, 5), ms.float32), ms.ops.ones((2, 3, 4, 4), ms.float32))
    np.testing.assert_allclose(masked.asnumpy(), tiny(*inputs).asnumpy(), rtol=1e-5, atol=1e-6)


def test_masked_text_and_patches_have_no_influence(tiny: LatteT2V) -> None:
    latents, timestep, text = tiny_inputs()
    text_mask = np.ones((2, 5), np.int32)
    text_mask[1, 3:] = 0
    latent_mask = np.ones((2, 3, 4, 4), np.float32)
    latent_mask[:, :, 2:] = 0
    masks = ms.Tensor(text_mask), ms.Tensor(latent_mask)
    other_text = ms.Tensor(text.asnumpy() + 5.0 * (text_mask[:, :, None] == 0))
    other_latents = ms.Tensor(latents.asnumpy() + 5.0 * (latent_mask[:, None] == 0).astype(np.float32))
    first = tiny(latents, timestep, text, *masks).asnumpy()
    second = tiny(other_latents, timestep, other_text.astype(ms.float32), *masks).asnumpy()
    np.testing.assert_allclose(second[..., :2, :], first[..., :2, :], rtol=1e-4, atol=1e-5)


def test_rectangular_training_size_gives_the_references_output_at_every_size(video: dict[str, Any]) -> None:
    """The reference cannot run a rectangular sample_size: it uses the first number for both axes."""
    model = build("latte", sample_size=[8, 12])
    assert_close(call(model, video, "othersize"), video["othersize.output"])
    assert_close(call(model, video, "padmask"), video["padmask.output"])


@pytest.mark.parametrize("frames", [1, 5])
def test_other_frame_counts_give_as_many_frames(tiny: LatteT2V, frames: int) -> None:
    output = tiny(*tiny_inputs(frames=frames))
    assert output.shape == (2, 8, frames, 4, 4)
    assert np.isfinite(output.asnumpy()).all()


def test_half_precision_weights_take_and_give_float32(tiny: LatteT2V) -> None:
    half = LatteT2V(TINY, {name: value.astype(ms.float16) for name, value in tiny.weights.items()})
    output, expected = half(*tiny_inputs()), tiny(*tiny_inputs()).asnumpy()
    assert output.dtype == ms.float32
    np.testing.assert_allclose(output.asnumpy(), expected, rtol=0, atol=1e-2 * np.abs(expected).max())


def test_weights_of_the_release_have_its_names_and_shapes() -> None:
    expected = {name: tuple(shape) for name, shape in reference.read_json("extras/latte_xl122_keys").items()}
    assert weight_shapes(LatteConfig()) == expected
    for folder in ("latte", "latte_compress"):
        shapes = weight_shapes(LatteConfig.from_dict(reference.read_json(f"{folder}/config")))
        assert shapes == {name: value.shape for name, value in reference.load(f"{folder}/weights").items()}


def test_saved_folder_holds_the_releases_names_and_loads_to_the_same_output(
    tiny: LatteT2V, tmp_path: Path
) -> None:
    tiny.save_pretrained(tmp_path)
    assert set(load_file(tmp_path / "diffusion_pytorch_model.safetensors")) == set(weight_shapes(TINY))
    again = LatteT2V.from_pretrained(tmp_path)
    assert again.config == tiny.config
    inputs = tiny_inputs()
    np.testing.assert_array_equal(again(*inputs).asnumpy(), tiny(*inputs).asnumpy())


def test_overrides_replace_keys_of_the_config(tiny: LatteT2V, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path)
    assert LatteT2V.from_pretrained(tmp_path, video_length=9).config.video_length == 9
    with pytest.raises(WeightsError, match=r"attn1\.sr\.weight"):
        LatteT2V.from_pretrained(tmp_path, compress_kv_factor=2)


def test_fresh_weights_predict_zero_and_depend_on_the_generator_only() -> None:
    first, second = (LatteT2V.initialise(TINY, np.random.default_rng(5)) for _ in range(2))
    assert all((first.weights[name] == second.weights[name]).all() for name in weight_shapes(TINY))
    assert not first(*tiny_inputs()).asnumpy().any()


def test_fresh_weights_take_the_frames_of_a_video_one_by_one() -> None:
    fresh = LatteT2V.initialise(TINY, np.random.default_rng(5))
    fresh.weights["proj_out.weight"] = ms.ops.ones_like(fresh.weights["proj_out.weight"])
    latents, *others = tiny_inputs()
    output = fresh(latents, *others).asnumpy()
    turned = fresh(latents[:, :, ::-1], *others).asnumpy()
    np.testing.assert_allclose(output[:, :, 1], turned[:, :, 1], atol=1e-6)
    assert np.abs(output[:, :, 0] - turned[:, :, 0]).max() > 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm_type": "ada_norm"}, "norm_type = 'ada_norm'"),
        ({"cross_attention_dim": 12}, "cross_attention_dim is 12"),
        ({"use_rope": True, "compress_kv_factor": 2}, "exclude each other"),
        ({"use_rope": True, "num_attention_heads": 4, "attention_head_dim": 2}, "multiple of 4"),
    ],
)
def test_unsupported_configurations_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatteConfig.from_dict({**TINY.to_dict(), **changes})


def test_shapes_that_do_not_fit_are_named(tiny: LatteT2V) -> None:
    latents, timestep, text = tiny_inputs()
    with pytest.raises(ValueError, match=r"\(2, 3, 3, 4, 4\)"):
        tiny(latents[:, :3], timestep, text)
    with pytest.raises(ValueError, match="3x4: height and width must be multiples"):
        tiny(latents[..., :3, :], timestep, text)
    with pytest.raises(ValueError, match="have 4 channels"):
        tiny(latents, timestep, text[..., :4])
    two_captions = ms.ops.stack((text, text), 1)
    for captions, images in ((text, 1), (text[:, :2], 1), (two_captions, 0), (two_captions, 2)):
        with pytest.raises(ValueError, match=f"with {images} images it must be"):
            tiny(latents, timestep, captions, num_images=images)
    with pytest.raises(ValueError, match="temporal=False"):
        tiny(latents, timestep, text, num_images=3)


def test_images_alone_train_all_but_the_temporal_blocks(tiny: LatteT2V) -> None:
    _, gradients = tiny.value_and_grad(mean_of_squares, *tiny_inputs(), temporal=False)
    unused = {name for name in tiny.weights if name.startswith(("temporal_", "caption_projection.y_"))}
    assert set(gradients) == set(tiny.weights) - unused


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_weights_in_16_bits_give_what_rounded_weights_give(
    model: LatteT2V, tmp_path: Path, video: dict[str, Any], dtype: str
) -> None:
    model.save_pretrained(tmp_path)
    kept = LatteT2V(model.config, {})
    kept.load_weights(tmp_path, dtype)
    model.save_pretrained(tmp_path, dtype={"fp16": "float16", "bf16": "bfloat16"}[dtype])
    rounded = call(LatteT2V.from_pretrained(tmp_path), video, "padmask")
    np.testing.assert_array_equal(call(kept, video, "padmask"), rounded)
    assert np.abs(rounded - video["padmask.output"].asnumpy()).max() > 1e-4
    assert isinstance(kept.weights, OnDemand) and set(kept.weights) == set(model.weights)
