"""Class-conditional Latte: parity of its three forms with the reference, on both engines."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from opensora.cli import main
from opensora.diffusion import GaussianDiffusion
from opensora.models import Latte
from opensora.models.latte_class import network
from opensora.models.latte_class.config import LatteClassConfig
from opensora.models.latte_class.weights import POSITIONS, position_tables, weight_shapes
from opensora.runtime import mindspore
from opensora.train.latte_class import step_gradients
from opensora.train.loss import Batch
from opensora.weights import WeightsError
from tests import reference
from tests.models.latte_class.cases import (
    arrays,
    build,
    frames_second,
    parameters,
    predict,
    settings,
    tensors,
)

ENGINES = pytest.mark.parametrize("engine", ["mindspore", "openvino"])
CLOSE = {"rtol": 1e-4, "atol": 2e-5}
pytestmark = pytest.mark.usefixtures("operator_mode")


@ENGINES
@pytest.mark.parametrize("case", ["labels", "null", "extras1"])
def test_dit(case: str, engine: str) -> None:
    found, extras = tensors("dit"), {"extras": 1} if case == "extras1" else {}
    model = build("dit", engine, **extras)
    result = predict(model, frames_second(found[f"{case}.x"]), found[f"{case}.t"], found.get(f"{case}.y"))
    np.testing.assert_allclose(frames_second(result), found[f"{case}.output"], **CLOSE)


def test_no_labels_are_the_null_label() -> None:
    found = tensors("dit")
    result = predict(build("dit"), frames_second(found["null.x"]), found["null.t"])
    np.testing.assert_allclose(frames_second(result), found["null.output"], **CLOSE)


@ENGINES
def test_dit_with_a_mask(engine: str) -> None:
    """Masked patches are compared with nothing: in the original they attend to everything evenly."""
    found = tensors("dit")
    kept = found["mask.attn_mask"]  # (B, T, rows, columns)
    mask = kept.reshape(kept.shape[0] * kept.shape[1], -1).astype(np.float32)
    latents = frames_second(found["mask.x"])
    result = predict(build("dit", engine), latents, found["mask.t"], found["mask.y"], mask)
    pixels = kept.repeat(2, 2).repeat(2, 3)[:, :, None].astype(bool)  # (B, T, 1, H, W)
    expected = found["mask.output"]
    difference = np.abs(frames_second(result) - expected) - 1e-4 * np.abs(expected)
    assert (difference * pixels).max() < 2e-5


@ENGINES
def test_dit_with_guidance(engine: str) -> None:
    found = tensors("dit")
    model = build("dit", engine)
    half = frames_second(found["cfg.x"][:1])
    result = model.guided(half, found["cfg.t"][:1], found["cfg.y"][:1], 4.0)
    np.testing.assert_allclose(frames_second(result), found["cfg.output"][:1], **CLOSE)


def test_dit_training_step() -> None:
    """The labels are those after dropping; the gradients are those of the mean loss."""
    ms, found = mindspore(), tensors("dit")
    dropped = np.where(found["train.rand"] < 0.1, 11, found["train.y"])
    latents, noise = (ms.Tensor(frames_second(found[f"train.{name}"])) for name in ("x_start", "noise"))
    steps, diffusion = found["train.t"], GaussianDiffusion()
    model = build("dit", "mindspore")
    output, _ = model.forward_with_tape(diffusion.q_sample(latents, steps, noise), steps, dropped)
    terms = diffusion.loss(output, latents, steps, noise)
    for name, value in zip(("loss", "mse", "vb"), terms, strict=True):
        np.testing.assert_allclose(value.asnumpy(), found[f"train.{name}"], rtol=1e-5)
    _, gradients = model.value_and_grad(
        lambda y: ms.ops.mean(diffusion.loss(y, latents, steps, noise)[0]),
        diffusion.q_sample(latents, steps, noise),
        steps,
        dropped,
    )
    expected = {name[11:]: value for name, value in found.items() if name.startswith("train.grad.")}
    for name, value in expected.items():
        assert np.abs(gradients[name].asnumpy() - value).max() <= 1e-4 * np.abs(value).max(), name
    assert len(expected) == 8 and set(gradients) == set(weight_shapes(model.config))


@ENGINES
@pytest.mark.parametrize("case", ["video", "keymask", "othersize"])
def test_single(case: str, engine: str) -> None:
    found = tensors("single")
    latents, mask = found[f"{case}.hidden_states"], found.get(f"{case}.attention_mask")
    mask = None if mask is None else mask.astype(np.float32)
    result = predict(build("single", engine), latents, found[f"{case}.timestep"], None, mask)
    np.testing.assert_allclose(result[:, :, ::5], found[f"{case}.output"], **CLOSE)


def test_single_training_step_with_images() -> None:
    ms, found = mindspore(), reference.load("latte_class/single_train")
    latents, noise = ms.Tensor(found["x_start"]), ms.Tensor(found["noise"])
    steps, diffusion = found["t"], GaussianDiffusion()
    loss, gradients = build("single", "mindspore").value_and_grad(
        lambda y: ms.ops.mean(diffusion.loss(y, latents, steps, noise)[0]),
        diffusion.q_sample(latents, steps, noise),
        steps,
        num_images=2,
    )
    np.testing.assert_allclose(loss.asnumpy(), found["ckpt.loss"].mean(), rtol=1e-5)
    for name, value in found.items():
        if name.startswith("ckpt.grad."):
            assert np.abs(gradients[name[10:]].asnumpy() - value).max() <= 1e-4 * np.abs(value).max(), name


@ENGINES
def test_zero(engine: str) -> None:
    found = tensors("zero")
    model = build("zero", engine)
    latents, steps = found["repaired.hidden_states"], found["repaired.timestep"]
    result = predict(model, latents, steps, found["repaired.class_labels"])
    np.testing.assert_allclose(result, found["repaired.output"], **CLOSE)
    half, steps, labels = (found[f"cfg.{name}"] for name in ("hidden_states", "timestep", "class_labels"))
    guided = model.guided(half, steps[:1], labels[:1], 4.0)
    np.testing.assert_allclose(guided[:, :4], found["cfg.output"][:1, :4], **CLOSE)


@pytest.mark.parametrize("variant", ["dit", "zero"])
def test_the_label_table_has_gradients(variant: str) -> None:
    """Only the rows of the labels that occur."""
    ms, rng = mindspore(), np.random.default_rng(0)
    latents = ms.Tensor(rng.standard_normal((2, 4, 3, 8, 8), np.float32))
    model = build(variant, "mindspore")
    labels = np.array([1, model.config.null_label])
    _, gradients = model.value_and_grad(lambda y: ms.ops.mean(y * y), latents, np.array([3, 900]), labels)
    tables = [value.asnumpy() for name, value in gradients.items() if "embedding_table" in name]
    assert tables and all(
        np.flatnonzero(np.abs(table).sum(1)).tolist() == labels.tolist() for table in tables
    )


def test_images_after_a_video_pass_the_temporal_blocks() -> None:
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((1, 4, 5, 8, 8)).astype(np.float32)
    model, steps = build("dit"), np.array([500])
    joint = model(latents, steps, np.array([2]), num_images=2)
    other = latents.copy()
    other[:, :, 3] = 0
    changed = model(other, steps, np.array([2]), num_images=2)
    same = np.abs(joint - changed).max((0, 1, 3, 4)) < 1e-6
    assert same.tolist() == [True, True, True, False, True]


@pytest.mark.parametrize("variant", ["dit", "zero"])
def test_frames_in_groups_are_the_whole(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of two of five frames, with a mask: output and gradients."""
    ms, rng = mindspore(), np.random.default_rng(0)
    latents = ms.Tensor(rng.standard_normal((2, 4, 5, 8, 8), np.float32))
    mask = ms.Tensor((rng.random((10, 16)) < 0.7).astype(np.float32))
    results = []
    for limit in (2**28, 2 * 4 * 2 * 4 * 16**2):
        monkeypatch.setattr(network, "SCORE_BYTES", limit)
        model = build(variant, "mindspore")
        inputs = latents, np.array([3, 900]), np.array([1, 2]), mask
        loss, gradients = model.value_and_grad(lambda y: ms.ops.mean(y * y), *inputs)
        results.append((loss.asnumpy(), gradients))
    (loss, gradients), (same, others) = results
    np.testing.assert_allclose(same, loss, rtol=1e-6)
    largest = max(np.abs(value.asnumpy()).max() for value in gradients.values())
    for name, value in gradients.items():
        np.testing.assert_allclose(others[name].asnumpy(), value.asnumpy(), atol=1e-6 * largest, err_msg=name)


@pytest.mark.slow
def test_a_training_step_on_latents_of_225x90x90() -> None:
    """A minute of video at tiny width, with patches of 10."""
    config = LatteClassConfig(
        num_layers=1, num_attention_heads=1, attention_head_dim=4, num_classes=2, patch_size=10,
        sample_size=(90, 90), video_length=225,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    model, latents = Latte.initialise(config, rng), rng.standard_normal((1, 4, 225, 90, 90), np.float32)
    batch = Batch(latents=latents, noise=latents, timestep=np.array([500]), labels=np.array([1]))
    terms, gradients = step_gradients(model, batch)
    assert np.isfinite(terms["loss"].asnumpy()).all()
    assert np.abs(gradients["final_layer.linear.weight"].asnumpy()).max() > 0


@pytest.mark.parametrize(
    ("variant", "keys", "count"),
    [("single", "latte_xl122", 902_434_208), ("zero", "latteclass_xl122", 1_438_943_648)],
)
def test_names_at_release_size(variant: str, keys: str, count: int) -> None:
    published = reference.read_json(f"latte_class/keys_{keys}")
    classes = 0 if variant == "single" else 101
    config = LatteClassConfig(variant, num_classes=classes)  # type: ignore[arg-type]
    shapes = weight_shapes(config)
    block_0 = {name: list(shape) for name, shape in shapes.items() if ".0." in name or "blocks." not in name}
    others = [name for name in block_0 if "blocks." in name and "blocks.0." not in name]
    assert {name: shape for name, shape in block_0.items() if name not in others} == published["tensors"]
    assert (
        (len(shapes), parameters(config))
        == (published["count"], count)
        == (len(shapes), published["parameters"])
    )


@pytest.mark.parametrize("size", ["XL", "L", "B", "S"])
def test_sizes_of_vchitect(size: str) -> None:
    published = reference.read_json("latte_class/hist_sizes")
    sizes = published["sizes"][f"Latte-{size}/122"]
    config = LatteClassConfig.from_dict({**sizes, "extras": 2, "num_classes": 101, "input_size": 32})
    assert (config.num_layers * 2, config.width) == (sizes["depth"], sizes["hidden_size"])
    assert LatteClassConfig.from_dict(config.to_dict()) == config
    if size == "S":
        tables = {name: table.shape for name, table in position_tables(config).items()}
        shapes = {name: list(shape) for name, shape in {**tables, **weight_shapes(config)}.items()}
        first = {
            name: value
            for name, value in shapes.items()
            if name.startswith("blocks.0.") or "blocks." not in name
        }
        assert first == published["keys"]


@pytest.mark.parametrize("extras", [1, 2])
def test_a_file_without_a_config(extras: int, tmp_path: Path) -> None:
    config = LatteClassConfig(
        num_layers=1, num_attention_heads=6, attention_head_dim=64, num_classes=3 if extras == 2 else 0,
        sample_size=(8, 8), video_length=5, patch_size=4,
    )  # fmt: skip
    model = Latte.initialise(config, np.random.default_rng(0))
    weights = {name: value.asnumpy() for name, value in model.weights.items()}
    save_file({**position_tables(config), **weights}, tmp_path / "sky.safetensors")
    opened = Latte.from_pretrained(tmp_path / "sky.safetensors", engine="openvino")
    assert opened.config == config


@pytest.mark.parametrize("variant", ["dit", "single", "zero"])
def test_folders_and_dicts(variant: str, tmp_path: Path) -> None:
    weights = arrays(variant)
    model = Latte.from_weights(weights, engine="openvino", **settings(variant))
    model.save_pretrained(tmp_path)
    opened = Latte.from_pretrained(tmp_path, engine="openvino")
    assert opened.config == model.config
    saved = {**opened.weights, **position_tables(opened.config)}
    for name in weights:
        np.testing.assert_array_equal(saved[name], weights[name])
    name = max(set(weights) - set(POSITIONS))
    with pytest.raises(WeightsError, match="lack 1 tensors"):
        Latte.from_weights({key: weights[key] for key in weights if key != name}, **settings(variant))


def test_bad_settings_and_labels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="extras = 78"):
        LatteClassConfig.from_dict(settings("dit", extras=78))
    with pytest.raises(ValueError, match="norm_type = 'layer_norm'"):
        LatteClassConfig.from_dict(settings("zero", norm_type="layer_norm"))
    with pytest.raises(ValueError, match="caption_channels = 4096"):
        LatteClassConfig.from_dict(settings("single", caption_channels=4096))
    with pytest.raises(ValueError, match="depth 3 must be even"):
        LatteClassConfig.from_dict(settings("dit", depth=3))
    with pytest.raises(ValueError, match="names 2 classes, but the model has 11"):
        LatteClassConfig.from_dict(settings("dit", class_names=["a", "b"]))
    latents, model = np.zeros((1, 4, 3, 8, 8), np.float32), build("dit")
    with pytest.raises(ValueError, match="the label 12 is unknown: this model has 11 classes"):
        model(latents, np.array([1]), np.array([12]))
    with pytest.raises(ValueError, match="must be 1 whole numbers"):
        model(latents, np.array([1]), np.array([1, 2]))
    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="does not hold the weights of a Latte"):
        Latte.from_pretrained(tmp_path / "x.safetensors")


@pytest.mark.parametrize("variant", ["dit", "single", "zero"])
def test_convert_keeps_what_the_original_reads(variant: str, tmp_path: Path) -> None:
    """From a folder to one of half precision, with the tables of positions of "dit"."""
    build(variant).save_pretrained(tmp_path / "run")
    assert main(["convert", "--src", "run", "--target", "half/latte", "--dtype", "float16"]) == 0
    saved = load_file(tmp_path / "half" / "latte" / "diffusion_pytorch_model.safetensors")
    weights = arrays(variant)
    assert set(saved) == set(weights)
    for name, value in weights.items():
        np.testing.assert_array_equal(saved[name], value.astype(np.float16))
    assert (
        Latte.from_pretrained(tmp_path / "half" / "latte", engine="openvino").config == build(variant).config
    )


def test_convert_of_a_published_file_finds_its_configuration(tmp_path: Path) -> None:
    config = LatteClassConfig(
        num_layers=1, num_attention_heads=6, attention_head_dim=64, num_classes=3, sample_size=(8, 8),
        video_length=5, patch_size=4,
    )  # fmt: skip
    model = Latte.initialise(config, np.random.default_rng(0))
    weights = {name: value.asnumpy() for name, value in model.weights.items()}
    save_file({**position_tables(config), **weights}, tmp_path / "ucf101.safetensors")
    assert main(["convert", "--src", "ucf101.safetensors", "--target", "ucf101"]) == 0
    assert Latte.from_pretrained(tmp_path / "ucf101", engine="openvino").config == config
