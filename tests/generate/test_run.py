"""`opensora generate` from the words of the command line to the files."""

import json
import logging
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from opensora.cli import main
from opensora.files import only_writer
from opensora.generate import prompts, stages
from opensora.generate import run as command
from opensora.generate.options import GenerateOptions, prepare
from opensora.generate.run import generate
from opensora.media.reader import probe, read_video
from opensora.models.causal_vae.tiling import UNBOUNDED
from opensora.pipeline import core
from tests.models.srvgg.test_model import small_weights


def run(*words: str, out: str = "out") -> int:
    return main(["generate", *words, "--model_path", "model", "--save_img_path", out])


def contents(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.*") if path.suffix != ".json"}


def test_videos_and_what_they_were_made_from(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("a cat", "a dog", "--contact_sheet", "--negative_prompt", "") == 0
    assert sorted(path.name for path in Path("out").iterdir()) == sorted(
        f"{name}.{suffix}"
        for name in ("0000-a_cat", "0001-a_dog")
        for suffix in ("mp4", "json", "contact.png")
    )
    assert probe("out/0000-a_cat.mp4") == (5, 12.0, 32, 32)
    assert probe("out/0001-a_dog.contact.png") == (1, 24.0, 2 * 256, 3 * 256)
    sidecar = json.loads(Path("out/0001-a_dog.json").read_text())
    assert sidecar["recipe"]["prompt"] == "a dog" and sidecar["recipe"]["seed"] == 8
    assert sidecar["versions"]["numpy"] == np.__version__
    said = capfd.readouterr().err
    assert "compiling the transformer" in said and "step 3 of 3" in said and "out/0001-a_dog.mp4" in said

    # The command in the sidecar makes the same frames.
    words = shlex.split(sidecar["command"])
    assert words[:2] == ["opensora", "generate"]
    assert main([*words[1:], "--save_img_path", "again"]) == 0
    assert Path("again/0000-a_dog.mp4").read_bytes() == Path("out/0001-a_dog.mp4").read_bytes()


def test_frames_are_enlarged_and_interpolated(model: Path) -> None:
    """After decoding, in this order; the sidecar says so, and its command makes the same video."""
    save_file(small_weights(), "small.safetensors")
    words = ["--upscale", "2", "--upscale_weights", "small.safetensors", "--interpolate", "2"]
    assert run("a cat", *words) == 0
    assert probe("out/0000-a_cat.mp4") == (10, 24.0, 64, 64)
    sidecar = json.loads(Path("out/0000-a_cat.json").read_text())
    recipe = sidecar["recipe"]
    assert recipe["upscale"]["factor"] == recipe["interpolate"]["factor"] == 2
    assert list(recipe["upscale"]["weights"]) == ["small.safetensors"]
    _, _, *again = shlex.split(sidecar["command"])
    assert main(["generate", *again, "--save_img_path", "again"]) == 0
    assert Path("again/0000-a_cat.mp4").read_bytes() == Path("out/0000-a_cat.mp4").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--upscale", "5"], "upscale"),
        (["--upscale_weights", "some.pth"], "--upscale_weights has no effect without --upscale"),
        (["--interpolate", "2", "--interpolate_weights", "some.pth"], "some.pth does not exist"),
        (["--interpolate", "2", "--save_latents"], "give it with --decode_latents"),
        (["--interpolate", "2", "--force_images"], "an image has one: leave it out"),
        (["--interpolate", "2", "--num_frames", "1"], "an image has one: leave it out"),
    ],
)
def test_bad_options_of_enlargement_and_interpolation(
    model: Path, capfd: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run("a cat", *words) == 2
    assert message in capfd.readouterr().err and not Path("out").exists()


def test_the_batch_size_does_not_change_the_bytes(model: Path) -> None:
    words = ["a cat", "a dog", "an owl", "--sample_method", "EulerAncestralDiscrete"]
    assert run(*words, out="single") == run(*words, "--batch_size", "2", out="pairs") == 0
    assert contents("single") == contents("pairs") and len(contents("single")) == 3


def test_an_interrupted_run_continues(
    model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("prompts.txt").write_text("a cat\na dog\nan owl\n")
    original, written = stages.write_result, []

    def interrupted(path: Path, *values: Any) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(path.name)
        original(path, *values)

    monkeypatch.setattr(stages, "write_result", interrupted)
    assert run("prompts.txt") == 130
    monkeypatch.setattr(stages, "write_result", original)
    before = Path("out/0000-a_cat.mp4").stat().st_mtime_ns
    capfd.readouterr()
    assert run("prompts.txt") == 0
    assert "skipping 1 of 3 videos, which are finished in out" in capfd.readouterr().err
    assert Path("out/0000-a_cat.mp4").stat().st_mtime_ns == before
    assert run("prompts.txt", out="whole") == 0
    assert contents("out") == contents("whole") and len(contents("out")) == 3

    # Finished: nothing is loaded any more. A contact sheet can still be added.
    monkeypatch.setattr(core, "Pipeline", None)
    assert run("prompts.txt", "--contact_sheet") == 0
    assert Path("out/0002-an_owl.contact.png").is_file()


def test_one_part_after_the_other_gives_the_same(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = GenerateOptions(
        text_prompt=["a cat", "a dog"], model_path="model", save_img_path="apart", num_videos_per_prompt=2
    )
    with caplog.at_level(logging.INFO, "opensora"):
        generate(prepare(options), memory=2**30)
    assert "loading one model at a time" in caplog.text
    assert run("a cat", "a dog", "--num_videos_per_prompt", "2", out="together") == 0
    assert contents("apart") == contents("together") and len(contents("apart")) == 4
    assert not list(Path("apart").glob(".opensora-*"))


def test_latents_in_one_run_and_pixels_in_another(model: Path) -> None:
    assert run("a cat", "--num_sampling_steps", "2", "--seed", "5", "--save_latents") == 0
    assert np.load("out/0000-a_cat.latents.npy").shape == (4, 2, 4, 4)
    (model / "text_encoder").rename(model / "gone")
    (model / "gone" / "config.json").unlink()
    assert run("a cat", "--decode_latents") == 0
    (model / "gone").rename(model / "text_encoder")
    (model / "text_encoder" / "config.json").write_text(json.dumps({"d_model": 8}))
    sidecar = json.loads(Path("out/0000-a_cat.json").read_text())["recipe"]
    assert (sidecar["seed"], sidecar["num_sampling_steps"]) == (5, 2)


def test_decoded_latents_are_the_video(model: Path) -> None:
    assert (
        run("a cat", "--save_latents") == run("a cat", "--decode_latents") == run("a cat", out="direct") == 0
    )
    assert Path("out/0000-a_cat.mp4").read_bytes() == Path("direct/0000-a_cat.mp4").read_bytes()
    assert (
        json.loads(Path("out/0000-a_cat.json").read_text())["recipe"]
        == json.loads(Path("direct/0000-a_cat.json").read_text())["recipe"]
    )


def test_pictures_and_other_formats(model: Path) -> None:
    assert run("a cat", "--force_images") == 0
    assert read_video("out/0000-a_cat.png").shape == (1, 32, 32, 3)
    assert run("a cat", "--format", "gif", out="gif") == 0
    assert probe("gif/0000-a_cat.gif").frames == 5
    for _ in range(2):
        assert run("a cat", "--format", "png", "--contact_sheet", out="png") == 0
        assert sorted(path.name for path in Path("png/0000-a_cat").iterdir())[::4] == [
            "00000.png",
            "00004.png",
        ]
    assert Path("png/0000-a_cat.contact.png").is_file() and Path("png/0000-a_cat.json").is_file()


def test_tiles_and_chunks(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = core.Pipeline.decode
    monkeypatch.setattr(
        core.Pipeline,
        "decode",
        lambda pipe, latents: seen.append(pipe.vae_policy.tiling) or original(pipe, latents),
    )
    assert run("a cat", "--enable_tiling", "--tile_overlap_factor", "0.5", out="tiles") == 0
    assert run("a cat", "--enable_time_chunk", "True", out="chunks") == 0
    assert (seen[0].size, seen[0].frames, seen[0].overlap) == (256, 65, 0.5)
    assert (seen[1].size, seen[1].frames) == (UNBOUNDED, 65)


def test_weights_in_place_of_the_folder_s(model: Path) -> None:
    source = model / "5x32x32" / "diffusion_pytorch_model.safetensors"
    (model.parent / "best.safetensors").write_bytes(source.read_bytes())
    assert run("a cat", "--pretrained_ckpt", "best.safetensors") == 0
    weights = json.loads(Path("out/0000-a_cat.json").read_text())["recipe"]["weights"]["transformer"]
    assert set(weights) == {"config.json", "best.safetensors"}

    checkpoint = Path("run/checkpoints/step-00000001")
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text("{}")
    (checkpoint / "ema.safetensors").write_bytes(source.read_bytes())
    assert run("a cat", "--pretrained_ckpt", "run", out="averaged") == 0
    averaged = json.loads(Path("averaged/0000-a_cat.json").read_text())["recipe"]["weights"]["transformer"]
    assert averaged == {"config.json": weights["config.json"], "ema.safetensors": weights["best.safetensors"]}
    Path("bad.pt").write_bytes(b"PK\x03\x04")
    assert run("a cat", "--pretrained_ckpt", "bad.pt", out="bad") == 2


def test_one_process_at_a_time_writes_to_a_folder(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leftover = Path("out/.opensora-0123456789abcdef")
    leftover.mkdir(parents=True)
    with only_writer(Path("out"), "save_img_path"):
        leftover.mkdir()
        assert run("a cat") == 2
        assert "another process is writing to out: wait until it ends" in capsys.readouterr().err
    assert run("a cat") == 0 and len(contents("out")) == 1 and not leftover.exists()


def test_prompts_that_are_hard_to_name(model: Path) -> None:
    texts = ["../../etc/passwd", "long " * 2000, "\U0001f418 : ?", "con"]
    assert run(*texts, "--num_sampling_steps", "1") == 0
    assert len(contents("out")) == 4
    assert sorted(path.name for path in Path().iterdir()) == ["model", "out"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda model: (model / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"x" * 100),
            "is truncated or damaged",
        ),
        (lambda model: (model / "text_encoder" / "spiece.model").unlink(), "spiece.model does not exist"),
        (
            lambda model: (model / "5x32x32" / "diffusion_pytorch_model.safetensors").unlink(),
            "does not exist",
        ),
        (lambda model: Path("out").write_text("a file"), "cannot be written"),
    ],
)
def test_faults_are_found_before_anything_is_written(
    model: Path, damage: Any, message: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(model)
    before = sorted(model.parent.rglob("*"))
    for free in (2**40, 2**24):
        monkeypatch.setattr(command, "free_memory", lambda free=free: free)
        assert run("a cat") == 2
        error = capfd.readouterr().err.splitlines()[-1]
        assert error.startswith("opensora: ") and message in error
        assert sorted(model.parent.rglob("*")) == before


def test_a_file_in_the_way(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out/0001-a_dog.mp4").write_text("mine")
    assert run("a cat", "a dog") == 2
    error = capfd.readouterr().err
    assert (
        error.startswith("opensora: out/0001-a_dog.mp4 exists and was made otherwise")
        and error.count("\n") == 1
    )
    assert [path.name for path in Path("out").iterdir()] == ["0001-a_dog.mp4"]


def test_the_demo_model_says_what_it_knows(
    model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prompts, "DEMO", Path("model"))
    assert run("a locomotive", "An Elephant on a sky blue background", "--num_sampling_steps", "1") == 0
    lines = [line for line in capfd.readouterr().err.splitlines() if "no subject of the demo model" in line]
    assert (
        len(lines) == 1
        and lines[0].startswith("prompt 'a locomotive' names no subject")
        and "elephant" in lines[0]
        and "sky blue" in lines[0]
    )
    assert len(contents("out")) == 2


def test_a_framework_that_was_never_tried(
    model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mindspore.__version__", "2.3.0")
    assert run("a cat", "--engine", "mindspore") == 2
    error = capfd.readouterr().err
    assert (
        error.splitlines()[-1].startswith("opensora: MindSpore 2.3.0 is installed")
        and "Traceback" not in error
    )
