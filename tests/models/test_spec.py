"""A model folder read once: sizes of latents, and memory counted from the headers of its files."""

import codecs
import json
from pathlib import Path

import pytest

from opensora.models import Tiling
from opensora.models.causal_vae.cost import decode_bytes
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.models.spec import FRAMEWORK, ModelSpec
from opensora.weights import WeightsError

WHOLE, CHUNKED = VAEPolicy(chunked=False), VAEPolicy(chunked=True)


@pytest.fixture
def spec(session_model: Path) -> ModelSpec:
    return ModelSpec.find(session_model)


def test_what_the_folder_holds(spec: ModelSpec, session_model: Path) -> None:
    assert spec.paths.transformer == session_model / "5x32x32"
    assert (spec.strides, spec.text_length, spec.native_size) == ((4, 8), 12, (5, 32, 32))
    assert spec.text_encoder is not None and spec.text_encoder.d_model == 8
    assert spec.vae.hidden_size == 16 and spec.transformer.num_layers == 1


@pytest.mark.parametrize(
    ("frames", "ours", "upstream"),
    [(1, 1, 1), (5, 2, 2), (7, 3, 3), (16, 5, 4), (17, 5, 5), (65, 17, 17), (221, 56, 56)],
)
def test_latent_frames(spec: ModelSpec, frames: int, ours: int, upstream: int) -> None:
    assert spec.latent_shape((frames, 32, 48)) == (4, ours, 4, 6)
    assert spec.latent_size((frames, 32, 48), upstream=True) == (upstream, 4, 6)
    assert spec.strides.pixel_size((ours, 4, 6))[0] >= frames


def test_weights_count_in_float32(spec: ModelSpec, session_model: Path) -> None:
    file = session_model / "text_encoder" / "model.safetensors"
    assert 0.95 * file.stat().st_size < spec.weight_bytes["text"] < file.stat().st_size


def test_memory_grows_with_the_video_and_falls_with_stages_and_16_bits(spec: ModelSpec) -> None:
    small, large = (spec.memory(size, WHOLE) for size in ((2, 4, 4), (17, 64, 64)))
    assert FRAMEWORK + sum(spec.weight_bytes.values()) < small.resident < large.resident
    assert large.min < large.staged < large.resident
    half = spec.memory((2, 4, 4), WHOLE, weights_dtype="bf16")
    assert small.resident - half.resident == spec.weight_bytes["denoise"] // 2
    assert spec.memory((2, 4, 4), WHOLE, stages=["text"]).resident < small.resident


def test_decoding_shrinks_with_tiles_and_chunks(spec: ModelSpec) -> None:
    size = (17, 64, 64)
    at_once = decode_bytes(spec.vae, size, WHOLE)
    assert decode_bytes(spec.vae, size, VAEPolicy(False, Tiling(size=64, frames=17))) < at_once / 4
    assert decode_bytes(spec.vae, (2, 4, 4), VAEPolicy(False, Tiling())) == decode_bytes(
        spec.vae, (2, 4, 4), WHOLE
    )
    # What is stored counts as far as it stays in memory.
    in_memory, in_file = (
        decode_bytes(spec.vae, size, VAEPolicy(True, budget=budget)) for budget in (2**40, 0)
    )
    assert 0 < in_file < in_memory < at_once / 4
    assert in_file <= decode_bytes(spec.vae, size, CHUNKED) <= in_memory


def test_another_autoencoder(spec: ModelSpec, tmp_path: Path) -> None:
    config = {
        "encoder_spatial_downsample": ["Downsample", "", "", ""],
        "encoder_temporal_downsample": [""] * 4,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    other = spec.with_vae(tmp_path)
    assert (other.paths.vae, other.strides) == (tmp_path, (1, 2)) and other.transformer == spec.transformer
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        WeightsError, match="is not that of a released model: it has no 'encoder_spatial_downsample'"
    ):
        spec.with_vae(tmp_path)


def changed(model: Path, part: str, **values: object) -> Path:
    path = model / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return model


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("5x32x32", {"num_layers": 10**9}, "num_layers = 1000000000, where a number from 1 to 1000"),
        ("5x32x32", {"num_layers": 0}, "where a number from 1 to 1000"),
        ("5x32x32", {"video_length": 10**12}, "video_length = 1000000000000"),
        ("5x32x32", {"sample_size": [4, 10**9]}, "sample_size"),
        ("5x32x32", {"patch_size": 0}, "patch_size = 0"),
        ("5x32x32", {"activation_fn": "x\x1b"}, r"activation_fn = 'x\\x1b'"),
        ("vae", {"hidden_size_mult": [1] * 10**5}, "hidden_size_mult"),
        ("vae", {"num_res_blocks": 10**9}, "num_res_blocks = 1000000000"),
        ("vae", {"encoder_resnet_blocks": ["ResnetBlock2D"]}, "hidden_size_mult has 4 levels"),
        ("vae", {"encoder_conv_in": "ResnetBlock2D"}, "encoder_conv_in = 'ResnetBlock2D', where one of"),
        ("vae", {"norm_num_groups": 3}, "norm_num_groups = 3, which does not divide"),
        ("text_encoder", {"num_layers": 10**9}, "num_layers = 1000000000"),
        ("text_encoder", {"relative_attention_max_distance": 8}, "more than a quarter"),
    ],
)
def test_configurations_out_of_range_are_refused_before_any_work(
    model: Path, part: str, values: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        ModelSpec.find(changed(model, part, **values))
    assert str(model / part / "config.json") in str(caught.value)


def test_a_configuration_with_a_byte_order_mark_reads(model: Path) -> None:
    path = model / "vae" / "config.json"
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert ModelSpec.find(model).vae.hidden_size == 16
