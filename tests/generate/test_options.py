"""A request is checked and completed before any model is loaded."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from opensora.generate.options import GenerateOptions, prepare
from opensora.models.spec import ModelSpec
from opensora.pipeline.settings import Sampling, complete_sampling
from opensora.weights import WeightsError

TRANSFORMER = {"patch_size": 2, "sample_size": [8, 12], "video_length": 5}
VAE = {
    "encoder_spatial_downsample": ["Downsample", "Downsample", "Downsample", ""],
    "encoder_temporal_downsample": ["", "TimeDownsample2x", "TimeDownsample2x", ""],
}


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    for part, config in (("17x64x96", TRANSFORMER), ("vae", VAE), ("text_encoder", {})):
        (tmp_path / "model" / part).mkdir(parents=True)
        (tmp_path / "model" / part / "config.json").write_text(json.dumps(config))
    return tmp_path / "model"


@pytest.fixture
def options(model_path: Path) -> GenerateOptions:
    return GenerateOptions(
        text_prompt=["a cat"],
        model_path=str(model_path),
        save_img_path=str(model_path.parent / "out" / "deep"),
    )


def test_defaults_of_a_release(options: GenerateOptions) -> None:
    job = prepare(options)
    assert job.prompts == ["a cat"]
    assert job.sampling == Sampling(17, 64, 96, 24, 150, 7.5, "PNDM", 4)
    assert "--num_sampling_steps 20" in job.hint
    assert not Path(options.save_img_path).parent.exists()


def test_the_model_folder_has_its_own_defaults_and_the_user_wins(
    options: GenerateOptions, model_path: Path
) -> None:
    (model_path / "generate.yaml").write_text(
        "num_sampling_steps: 20\nsample_method: DPM++2M\nguidance_scale: 4.0\nseed: 0\nfps: 12\n"
    )
    chosen = replace(options, height=128, num_frames=16, guidance_scale=1.0, seed=9)
    job = prepare(chosen)
    assert job.sampling == Sampling(16, 128, 96, 12, 20, 1.0, "DPM++2M", 9)
    assert job.hint == ""
    assert prepare(replace(chosen, force_images=True)).sampling.num_frames == 1


def test_python_callers_complete_the_same_way(model_path: Path) -> None:
    sampling = complete_sampling(ModelSpec.find(model_path), num_sampling_steps=3, seed=None)
    assert sampling == Sampling(17, 64, 96, 24, 3, 7.5, "PNDM", 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_prompt": []}, "there is no prompt"),
        ({"text_prompt": ["nowhere.txt"]}, r"prompt file nowhere\.txt does not exist"),
        ({"height": 72}, r"height 72 is not a multiple of 16 \(8 of the VAE times patches of 2\): use 64"),
        ({"width": 0}, "width 0 is not a multiple of 16 .*: use 16"),
        ({"num_frames": 0}, "num_frames 0 is out of range: use 1 to"),
        ({"num_sampling_steps": 0}, "num_sampling_steps 0 is out of range: use 1 to 1000"),
        ({"fps": 0}, "fps 0 is out of range"),
        ({"seed": -1}, "seed -1 is out of range"),
        ({"batch_size": 0}, "batch_size 0 is too small"),
        ({"num_videos_per_prompt": -2}, "num_videos_per_prompt -2 is too small"),
        ({"num_videos_per_prompt": 10**9}, "num_videos_per_prompt 10{9} is too large: use 65536 or less"),
        ({"guidance_scale": math.nan}, "guidance_scale nan is out of range: use -1000 to 1000"),
        ({"guidance_scale": math.inf}, "guidance_scale inf is out of range"),
        ({"sample_method": "PNMD"}, "sampler 'PNMD' is unknown.* 'PNDM'"),
        ({"tile_overlap_factor": 1.0}, "tile_overlap_factor 1.0 is outside 0 to 1"),
        ({"save_latents": True, "decode_latents": True}, "exclude each other"),
        (
            {"vae_memory": "chunked", "enable_time_chunk": True},
            "--vae_memory chunked works without tiles: leave out --enable_tiling",
        ),
        (
            {"precision": "bf16", "weights_dtype": "fp16", "device": "Ascend"},
            "--weights_dtype fp16 requires fp32",
        ),
        ({"precision": "fp16"}, "precision fp16 is not supported on a CPU by openvino"),
        (
            {"precision": "bf16", "engine": "mindspore"},
            "precision bf16 is not supported on a CPU by mindspore",
        ),
        ({"engine": "openvino", "device": "Ascend"}, "leave out --engine"),
        ({"model_path": "nowhere"}, "model folder nowhere does not exist"),
        (
            {"pretrained_ckpt": "nowhere.safetensors"},
            r"--pretrained_ckpt nowhere\.safetensors does not exist",
        ),
        ({"save_img_path": "/proc/nowhere"}, "save_img_path /proc/nowhere cannot be written"),
        ({"save_img_path": __file__ + "/out"}, "cannot be written"),
    ],
)
def test_faults_are_named(options: GenerateOptions, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(replace(options, **changes))
    assert not Path(options.save_img_path).parent.exists()


def test_a_release_needs_its_text_encoder(options: GenerateOptions, model_path: Path) -> None:
    (model_path / "text_encoder").rename(model_path.parent / "elsewhere")
    with pytest.raises(WeightsError, match="set --text_encoder_name to the folder of T5"):
        prepare(options)
    assert prepare(replace(options, decode_latents=True)).spec.text_encoder is None
    job = prepare(replace(options, text_encoder_name=str(model_path.parent / "elsewhere")))
    assert job.spec.paths.text_encoder == model_path.parent / "elsewhere"


def test_a_configuration_of_something_else(options: GenerateOptions, model_path: Path) -> None:
    (model_path / "vae" / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"config\.json in .*vae is not that of a released model"):
        prepare(options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('fps: "24"', "fps = '24', where a whole number belongs"),
        ("guidance_scale: 2e0", "guidance_scale = '2e0', where a number belongs"),
        ("num_sampling_steps: 2.5", "num_sampling_steps = 2.5, where a whole number belongs"),
        ("num_sampling_steps: 1000000000", "where a number from 1 to 1000 belongs"),
        ("seed:", "seed = None, where a whole number belongs"),
        ("sample_method: [PNDM]", r"sample_method = \['PNDM'\], where a text belongs"),
        ("- PNDM", "holds a list instead of an object"),
        ("steps: 3", "has the unknown name 'steps': use num_frames, height"),
        ("fps: &a 3\nseed: *a", "aliases"),
        ("height: 33", "height 33 is not a multiple of 16"),
    ],
)
def test_faults_of_generate_yaml_name_the_file_and_the_key(
    options: GenerateOptions, model_path: Path, text: str, message: str
) -> None:
    (model_path / "generate.yaml").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        prepare(options)
    assert "generate.yaml" in str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing\n", "fps: 12\n", "\ufefffps: 12\n"])
def test_what_generate_yaml_leaves_open_the_preset_has(
    options: GenerateOptions, model_path: Path, text: str
) -> None:
    (model_path / "generate.yaml").write_text(text)
    fps = 12 if "fps" in text else 24
    assert prepare(options).sampling == Sampling(17, 64, 96, fps, 150, 7.5, "PNDM", 4)


def test_bf16_is_for_processors_that_have_it(
    options: GenerateOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opensora.engine.openvino.capabilities", lambda: ["FP32", "BF16"])
    chosen = replace(options, precision="bf16")
    assert prepare(chosen).options.engine_here == "openvino"
    monkeypatch.setattr("opensora.engine.openvino.capabilities", lambda: ["FP32"])
    with pytest.raises(ValueError, match="precision 'bf16' needs a processor that computes with it"):
        prepare(chosen)
