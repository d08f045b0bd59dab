"""Before `opensora generate` starts: what it takes, a quicker choice, and a refusal of what cannot fit."""

import logging
import shlex
from pathlib import Path
from typing import Any

import pytest

from opensora.cli import main
from opensora.cli.arguments import parse
from opensora.engine.rates import Rates
from opensora.generate import estimate as outlook
from opensora.generate import run as command
from opensora.generate.options import GenerateOptions, prepare
from opensora.generate.plan import plan


@pytest.mark.parametrize("rate", [1e12, 1e5])
def test_one_line_and_a_quicker_command_where_it_is_long(
    model: Path, rate: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outlook, "measure_rates", lambda engine, precision: Rates(rate, rate))
    texts = ["a cat's house", "a dog"]
    options = GenerateOptions(
        text_prompt=texts, model_path="model", num_sampling_steps=900, sample_method="PNDM", save_latents=True
    )
    job = prepare(options)
    with caplog.at_level(logging.INFO, "opensora"):
        outlook.estimate(job, plan(job), 2**40)
    first, *rest = caplog.messages
    assert (
        first.startswith("2 videos of 5 frames, 32x32, 900 x PNDM: ")
        and "FLOP, about " in first
        and " GiB of memory or more" in first
    )
    assert first.endswith("on this CPU (an estimate)")
    if rate == 1e12:
        assert not rest
        return
    told = shlex.split(rest[0][rest[0].index("opensora generate") :])
    quick = parse(GenerateOptions, told[2:], "opensora generate", "x", "text_prompt")
    assert quick is not None and (quick.sample_method, quick.num_sampling_steps) == ("DPM++2M", 20)
    assert quick.text_prompt == texts and quick.model_path == "model" and quick.save_latents


@pytest.mark.parametrize(
    ("way", "free", "said"),
    [
        ("chunked", 2**40, "chunked, exact up to rounding, about"),
        ("exact", 2**20, "exact; the whole"),
        ("auto", 2**40, "exact; the whole"),  # a small video
    ],
)
def test_the_way_of_decoding_and_whether_all_fits(
    model: Path,
    way: str,
    free: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(outlook, "measure_rates", lambda engine, precision: Rates(1e12, 1e12))
    monkeypatch.setattr(outlook, "free_swap", lambda: 2**40)
    job = prepare(GenerateOptions(text_prompt=["a cat"], model_path="model", vae_memory=way))
    with caplog.at_level(logging.INFO, "opensora"):
        outlook.estimate(job, plan(job), free)
    line = caplog.messages[1]
    assert line.startswith(f"decoding: {said}") and "the whole video at once takes about" in line
    assert ("does not fit" if free == 2**20 else "which fits") in line


def test_enlarged_and_interpolated_frames_count(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlook, "measure_rates", lambda engine, precision: Rates(1e12, 1e12))

    def memory(**options: Any) -> int:
        job = prepare(GenerateOptions(text_prompt=["a cat"], model_path="model", num_frames=65, **options))
        return outlook.estimate(job, plan(job), 2**40).memory_min

    # 65 frames of 32x32 become 520 of 128x128, which are in memory twice beside the 65 enlarged ones.
    assert memory(upscale=4, interpolate=8) == 65 * 128 * 128 * 3 * 17 > memory()
    assert memory(upscale=2) == max(memory(), 65 * 64 * 64 * 3 * 2)


def test_what_cannot_fit_is_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "free_memory", lambda: 2**16)
    monkeypatch.setattr(outlook, "free_swap", lambda: 2**15)
    words = ["generate", "a cat", "--model_path", "model", "--save_img_path", "out"]
    assert main(words) == 2
    error = capfd.readouterr().err
    assert error.startswith("opensora: 1 video of 5 frames, 32x32, 3 x DPM++2M: ")
    assert "MiB are needed at least, 0.1 MiB are free" in error and error.count("\n") == 1
    assert "--weights_dtype bf16" in error
    assert not Path("out").exists()
    # Swap space counts: the same run begins, one model at a time.
    monkeypatch.setattr(outlook, "free_swap", lambda: 2**40)
    assert main([*words, "--num_sampling_steps", "1"]) == 0
    assert Path("out/0000-a_cat.mp4").is_file()


def test_16_bits_are_another_video_of_about_the_same_frames(
    model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", "a cat", "--model_path", "model", "--num_sampling_steps", "1", "--save_latents"]
    assert main([*words, "--save_img_path", "full"]) == 0
    assert capfd.readouterr().err.startswith("1 video of 5 frames, 32x32, 1 x DPM++2M: ")
    assert main([*words, "--save_img_path", "half", "--weights_dtype", "bf16"]) == 0
    assert main([*words, "--save_img_path", "full", "--weights_dtype", "bf16"]) == 2
    assert "was made otherwise" in capfd.readouterr().err
    full, half = (Path(folder, "0000-a_cat.latents.npy").read_bytes() for folder in ("full", "half"))
    assert full != half and len(full) == len(half)
