"""`opensora info`: from headers and configurations alone, quickly."""

import json
import subprocess
import sys
from math import prod
from pathlib import Path
from typing import Any

import pytest

from opensora.cli import main
from opensora.models.causal_vae.config import CausalVAEConfig
from opensora.models.latte.config import LatteConfig, weight_shapes
from opensora.models.latte_class.config import LatteClassConfig
from opensora.weights.folder import DEMO
from opensora.weights.sources import folder_files


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["info", *words, "--json"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def test_the_demo_model(capsys: pytest.CaptureFixture[str]) -> None:
    content = told(capsys, "demo", "--guidance_scale", "4", "--num_sampling_steps", "20")
    parts = {part["folder"].rsplit("/", 1)[1]: part for part in content["parts"]}
    (file,) = folder_files(DEMO / "17x64x64")
    assert parts["17x64x64"]["tensors"] == len(file.entries) and set(parts) == {
        "17x64x64",
        "vae",
        "text_encoder",
    }
    (video,) = content["videos"]
    assert (video["num_frames"], video["height"], video["num_steps"], video["guided"]) == (17, 64, 20, True)
    assert (
        0 < video["step_flops"] < video["forward_flops"]
        and video["seconds"] > 0
        and video["memory_staged"] <= video["memory_resident"]
    )
    assert "elephant" in content["subjects"]

    longer = told(
        capsys, "demo", "--num_frames", "33", "--num_sampling_steps", "40", "--guidance_scale", "1"
    )["videos"][0]
    assert (
        longer["num_steps"] == 40
        and longer["num_frames"] == 33
        and longer["step_flops"] > 1.7 * video["step_flops"]
    )

    assert main(["info", "demo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("  one forward: ") for line in lines) and any(
        "an estimate" in line for line in lines
    )
    assert main(["info", "demo", "--device", "Ascend"]) == 0
    assert "  time: not measured on this device" in capsys.readouterr().out.splitlines()


def test_a_release_with_several_versions(capsys: pytest.CaptureFixture[str]) -> None:
    for version, size, frames in (("65x512x512", 64, 17), ("17x256x256", 32, 5)):
        Path("release", version).mkdir(parents=True)
        config = LatteConfig(sample_size=(size, size), video_length=frames)
        Path("release", version, "config.json").write_text(json.dumps(config.to_dict()))
    Path("release/vae").mkdir()
    Path("release/vae/config.json").write_text((DEMO / "vae" / "config.json").read_text())
    videos = {video["version"]: video for video in told(capsys, "release")["videos"]}
    assert set(videos) == {"65x512x512", "17x256x256"}
    assert videos["65x512x512"]["forward_flops"] / 1e12 == pytest.approx(37.4, abs=0.05)
    assert (videos["65x512x512"]["num_steps"], videos["65x512x512"]["text_encoder"]) == (159, False)
    assert [video["version"] for video in told(capsys, "release", "--version", "17x256x256")["videos"]] == [
        "17x256x256"
    ]
    assert main(["info", "release", "--version", "17x256"]) == 2
    assert "did you mean '17x256x256'?" in capsys.readouterr().err
    shared = ("--version", "65x512x512", "--num_frames", "221", "--use_image_num", "4", "--sp_size", "8")
    step = told(capsys, "release", *shared)["videos"][0]["training_step"]
    assert step["encode_whole"] // 8 == step["encode"] > 0
    assert main(["info", "release", *shared]) == 0
    assert "transformer 65.9 TFLOP per process, " in capsys.readouterr().out
    assert main(["info", "release", *shared, "--num_no_recompute", "28"]) == 0
    assert "transformer 49.5 TFLOP per process, " in capsys.readouterr().out
    beside = told(
        capsys, "release", "--text_encoder_name", str(DEMO / "text_encoder"), "--version", "17x256x256"
    )
    assert beside["parts"][-1]["kind"] == "T5EncoderModel" and beside["videos"][0]["text_encoder"]
    # A part by itself has no videos.
    assert told(capsys, "release/vae")["videos"] == []
    assert main(["info", "release/vae", "--version", "65x512x512"]) == 2


def test_the_release_s_parameters_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """A file of the release's names and shapes, with a hole in the place of 4 GB of numbers."""
    header, offset = {}, 0
    for name, shape in weight_shapes(LatteConfig()).items():
        end = offset + 4 * prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header).encode()
    Path("latte").mkdir()
    Path("latte/config.json").write_text(json.dumps(LatteConfig().to_dict()))
    with open("latte/diffusion_pytorch_model.safetensors", "wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        file.truncate(8 + len(encoded) + offset)
    (part,) = told(capsys, "latte")["parts"]
    assert (part["kind"], part["parameters"], part["tensors"], part["stored"]) == (
        "LatteT2V",
        1_057_246_880,
        968,
        ["F32"],
    )


def test_nothing_is_loaded() -> None:
    code = (
        "import sys; from opensora.cli import main; "
        "code = main(['info', 'demo']); sys.exit(code or 'mindspore' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0
    )


def test_a_class_conditional_model_and_latents_of_225x90x90(capsys: pytest.CaptureFixture[str]) -> None:
    config = LatteClassConfig(num_layers=1, num_classes=2, class_names=("ant", "cow"))
    for name, content in (("xl", config.to_dict()), ("vae", vars(CausalVAEConfig()))):
        Path("classes", name).mkdir(parents=True)
        Path("classes", name, "config.json").write_text(json.dumps(content))
    (video,) = told(capsys, "classes")["classes"]
    assert (video["latents"], video["class_names"]) == ([4, 16, 32, 32], ["ant", "cow"])
    long = ("--num_frames", "897", "--height", "720", "--width", "720")
    (video,) = told(capsys, "classes", *long)["classes"]
    tokens, width = 225 * 45 * 45, config.width
    products = 2 * 24 * tokens * width**2 + 4 * tokens * width * (45**2 + 225)
    assert video["latents"] == [4, 225, 90, 90]
    assert video["forward_flops"] == pytest.approx(products, rel=0.01)
    assert main(["info", "classes", *long]) == 0
    assert "latents 225x90x90:" in capsys.readouterr().out
    assert main(["info", "classes", "--height", "100"]) == 2
