"""AMT: parity with the reference on both engines, sizes, batches, files, and bad inputs."""

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from opensora.models import AMT
from opensora.models.amt.config import AMTConfig, weight_shapes
from opensora.models.amt.model import padding
from opensora.weights import WeightsError
from tests import reference
from tests.models.amt.published import SMALL, formula, release_weights, small_weights
from tests.weights.crafted import Called, pickled, storage

ENGINES = pytest.mark.parametrize("engine", ["mindspore", "openvino"])


def frames(height: int, width: int, batch: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A smooth texture, and the same moved by 2 pixels to the right and 1 down."""
    rng = np.random.default_rng(3)
    y, x = np.indices((height, width), np.float32)
    waves = rng.uniform(0.05, 0.3, (batch, 3, 2, 1, 1)).astype(np.float32)

    def texture(dx: float, dy: float) -> np.ndarray:
        phase = waves[:, :, 0] * (x - dx) + waves[:, :, 1] * (y - dy)
        return (0.5 + 0.4 * np.sin(phase)).astype(np.float32)

    return texture(0, 0), texture(2, 1)


def small(engine: str = "openvino") -> AMT:
    return AMT.from_weights(small_weights(), engine=engine, **SMALL)


def test_names_and_shapes_are_the_release() -> None:
    published = reference.read_json("amt_g/keys")["tensors"]
    shapes = weight_shapes(AMTConfig())
    assert {name: list(shape) for name, shape in shapes.items()} == published
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 30_638_919


@pytest.mark.slow
@ENGINES
def test_the_reference(engine: str) -> None:
    weights, case = release_weights(), reference.load("amt_g/outputs")
    content = b"".join(weights[name].tobytes() for name in sorted(weights))
    assert hashlib.sha256(content).hexdigest() == formula()["sha256"]
    first, second = (
        np.ascontiguousarray(case[name].transpose(2, 0, 1)[None], np.float32) / np.float32(255)
        for name in ("frame0", "frame1")
    )
    model = AMT.from_weights(weights, engine=engine)
    found = model.predict(first, second)
    frame = found.frame.asnumpy()
    np.testing.assert_allclose(frame[..., ::2, ::2], case["pair.imgt_pred"], atol=1e-4)
    steps = {2: 2, 3: 1, 4: 1}
    for level, step in steps.items():
        flow = found.flows[4 - level].asnumpy()[..., ::step, ::step]
        for n, part in enumerate((flow[:, :2], flow[:, 2:])):
            expected = case[f"pair.flow{n}_pred.{level}"]
            np.testing.assert_allclose(part, expected, rtol=1e-4, atol=1e-4)
        step = 2 ** (5 - level)
        features = found.features[4 - level].asnumpy()[:, ::4, ::step, ::step]
        np.testing.assert_allclose(features, case[f"pair.ft_pred.{level - 1}"], rtol=1e-4, atol=1e-4)
    for n, flows in enumerate((found.flows0, found.flows1)):
        part = flows.asnumpy().reshape(1, 5, 2, 128, 144)[..., ::4, ::4]
        np.testing.assert_allclose(part, case[f"pair.flow{n}_pred.1"], rtol=1e-4, atol=1e-4)
    large = [image.repeat(2, 2).repeat(2, 3) for image in (first, second)]
    half = model(*large, scale_factor=0.5).asnumpy()
    np.testing.assert_allclose(half[..., ::4, ::4], case["half.imgt_pred"], atol=2e-4)


@pytest.mark.slow
def test_frames_between_are_the_reference() -> None:
    """Two passes, of which the second interpolates results of the first."""
    case = reference.load("amt_g/outputs")
    height, width = reference.read_json("amt_g/amt_g")["crop"]
    first, second = (
        np.ascontiguousarray(case[name][:height, :width].transpose(2, 0, 1)[None], np.float32)
        / np.float32(255)
        for name in ("frame0", "frame1")
    )
    found = AMT.from_weights(release_weights(), engine="openvino").between(first, second, 4)
    for number, frame in enumerate(found[:2], 1):
        levels = np.clip(frame[0] * 255, 0, 255).astype(np.uint8).transpose(1, 2, 0)
        expected = case[f"recursion.frame{number}"].astype(int)
        assert np.abs(levels.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("size", "scale", "before", "after"),
    [(128, 1, 0, 0), (121, 1, 3, 4), (33, 1, 47, 48), (200, 0.5, 28, 28)],
)
def test_padding_to_what_the_network_takes(size: int, scale: float, before: int, after: int) -> None:
    assert padding(size, scale) == (before, after)


@pytest.mark.parametrize(("height", "width"), [(24, 40), (7, 150)])
def test_every_size_has_a_frame(height: int, width: int) -> None:
    frame = small()(*frames(height, width)).asnumpy()
    assert frame.shape == (1, 3, height, width)
    assert np.isfinite(frame).all() and frame.std() > 0.01


@pytest.mark.slow
@pytest.mark.usefixtures("operator_mode")
def test_both_engines_agree_at_other_times() -> None:
    pair = frames(128, 144)
    first, second = (small(engine)(*pair, time=0.25).asnumpy() for engine in ("mindspore", "openvino"))
    np.testing.assert_allclose(first, second, atol=2e-5)
    middle = small()(*pair).asnumpy()
    assert np.abs(first - middle).max() > 1e-3


@pytest.mark.slow
def test_frames_of_a_batch_do_not_mix() -> None:
    model, (first, second) = small(), frames(128, 128, batch=2)
    together = model(first, second).asnumpy()
    for n in range(2):
        alone = model(first[n : n + 1], second[n : n + 1]).asnumpy()
        np.testing.assert_allclose(together[n : n + 1], alone, atol=1e-5)


def test_files_and_folders(tmp_path: Path) -> None:
    weights = {name: np.ascontiguousarray(value) for name, value in release_weights().items()}
    save_file(weights, tmp_path / "amt-g.safetensors")
    opened = AMT.from_pretrained(tmp_path / "amt-g.safetensors", engine="openvino")
    assert opened.config == AMTConfig()
    name = "comb_block.2.weight"
    np.testing.assert_array_equal(opened.weights[name], weights[name])
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(SMALL))
    save_file(dict(small_weights()), folder / "model.safetensors")
    pair = frames(24, 40)
    result = AMT.from_pretrained(folder, engine="openvino")(*pair).asnumpy()
    np.testing.assert_array_equal(result, small()(*pair).asnumpy())


def test_a_file_of_pytorch_with_a_state_dict(tmp_path: Path) -> None:
    """The published file: {"state_dict": {...}}."""
    weights = release_weights()
    tensors, records = {}, {}
    for key, (name, value) in enumerate(weights.items()):
        strides = tuple(step // 4 for step in value.strides)
        where = storage(str(key), value.size)
        tensors[name] = Called(
            "torch._utils", "_rebuild_tensor_v2", where, 0, value.shape, strides, False, {}
        )
        records[f"model/data/{key}"] = value.tobytes()
    path = tmp_path / "amt-g.pth"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("model/data.pkl", pickled({"state_dict": tensors}))
        for record, data in {"model/byteorder": b"little", **records, "model/version": b"3\n"}.items():
            file.writestr(record, data)
    opened = AMT.from_pretrained(path, engine="openvino")
    for name in ("feat_encoder.conv1.weight", "decoder1.convblock.2.bias"):
        np.testing.assert_array_equal(opened.weights[name], weights[name])


def test_other_weights_are_refused(tmp_path: Path) -> None:
    save_file(dict(small_weights()), tmp_path / "amt-s.safetensors")
    with pytest.raises(WeightsError, match=r"amt-s\.safetensors are not those of the model"):
        AMT.from_pretrained(tmp_path / "amt-s.safetensors")
    with pytest.raises(WeightsError, match=r"lack 1 tensors .*comb_block\.2\.bias"):
        AMT.from_weights({k: v for k, v in small_weights().items() if k != "comb_block.2.bias"}, **SMALL)
    with pytest.raises(ValueError, match="channels"):
        AMTConfig.from_dict({"channels": [84]})


@pytest.mark.parametrize(
    ("shape", "time", "scale", "message"),
    [
        ((1, 3, 24), 0.5, 1.0, r"must be \(B, 3, H, W\)"),
        ((1, 4, 24, 24), 0.5, 1.0, r"must be \(B, 3, H, W\)"),
        ((1, 3, 24, 24), 1.0, 1.0, "time 1.0 is not between"),
        ((1, 3, 24, 24), 0.5, 0.3, r"scale_factor 0\.3 is not supported"),
    ],
)
def test_bad_calls(shape: tuple[int, ...], time: float, scale: float, message: str) -> None:
    images = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match=message):
        small()(images, images, time, scale_factor=scale)
