"""`opensora evaluate` from the words of the command line to the figures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opensora.cli import main
from opensora.media.reader import read_video
from opensora.media.writer import write_video
from opensora.metrics.frechet import frechet_distance_of_samples
from opensora.metrics.networks import VideoFeatures
from opensora.metrics.pixels import psnr, ssim


def clip(seed: int, frames: int = 3, height: int = 16, width: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)


@pytest.fixture(autouse=True)
def folders() -> None:
    """Two pairs, one of which differs in format: a picture and a video of three frames."""
    for number, folder in enumerate(("real", "made")):
        Path(folder).mkdir()
        write_video(f"{folder}/a.png", clip(number, 1))
        write_video(f"{folder}/b.{('gif', 'mp4')[number]}", clip(2 + number))


def run(*words: str) -> int:
    return main(["evaluate", "--real_video_dir", "real", "--generated_video_dir", "made", *words])


def figures(path: str = "made/evaluation.json") -> dict[str, Any]:
    return dict(json.loads(Path(path).read_text()))


def test_figures_are_means_over_frames_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    content = figures()
    for item, names in zip(
        content["files"], (("real/a.png", "made/a.png"), ("real/b.gif", "made/b.mp4")), strict=True
    ):
        real, made = (read_video(name) for name in names)
        assert item["file"] == Path(names[0]).name and item["frames"] == len(real)
        for name, metric in (("psnr", psnr), ("ssim", ssim)):
            assert item[name] == pytest.approx(
                np.mean([metric(x, y) for x, y in zip(real, made, strict=True)])
            )
    for name in ("psnr", "ssim"):
        assert content["total"][name] == pytest.approx(np.mean([item[name] for item in content["files"]]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["file", "frames", "size", "PSNR,", "dB", "SSIM"] and lines[1].split()[:3] == [
        "a.png",
        "1",
        "16x24",
    ]
    assert lines[3].split() == [
        "all",
        "(2)",
        "4",
        f"{content['total']['psnr']:.2f}",
        f"{content['total']['ssim']:.4f}",
    ]
    # Again in the same words: the file may be replaced. Otherwise it is in the way.
    assert run() == 0


def test_the_mean_frame_is_what_a_still_picture_could_get() -> None:
    assert run("--metric", "psnr", "mean_frame", "--output", "still.json") == 0
    real = read_video("real/b.gif")
    still, moving = (item["mean_frame"] for item in figures("still.json")["files"])
    assert still == 100 and moving == pytest.approx(np.mean([psnr(real.mean(0), frame) for frame in real]))
    assert figures("still.json")["total"]["mean_frame"] == pytest.approx((still + moving) / 2)


def test_sizes_frames_and_subsets(capfd: pytest.CaptureFixture[str]) -> None:
    write_video("real/c.mp4", clip(5, 5, 40, 50))
    write_video("made/c.mp4", clip(6, 4, 20, 24))
    assert run("--metric", "ssim", "--resolution", "16", "--crop_size", "14", "--sample_rate", "2") == 0
    assert [(item["frames"], item["height"], item["width"]) for item in figures()["files"]] == [
        (1, 14, 14),
        (2, 14, 14),
        (2, 14, 14),
    ]
    assert "real/c.mp4 has 3 frames and made/c.mp4 2: the first 2 are compared" in capfd.readouterr().err
    assert run("--metric", "psnr", "--subset_size", "1", "--num_frames", "1", "--output", "few.json") == 0
    assert [item["file"] for item in figures("few.json")["files"]] == ["a.png"]
    # Without a common size the pair is left out, and the exit code tells.
    assert run("--output", "some.json") == 1
    assert figures("some.json")["skipped"][0]["reason"].startswith(
        "real/c.mp4 has frames of 40x50 and made/c.mp4 of 20x24: bring both"
    )
    assert len(figures("some.json")["files"]) == 2


def test_broken_files_are_named_and_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    Path("made/a.png").write_bytes(b"not a picture")
    assert run("--num_workers", "3") == 1
    assert [item["file"] for item in figures()["files"]] == ["b.gif"]
    assert "a.png is left out: made/a.png cannot be read" in capfd.readouterr().err
    Path("made/b.mp4").write_bytes(b"nor a video")
    Path("made/evaluation.json").unlink()
    assert run() == 2
    assert (
        "none of 2 pairs could be measured, the first because made/a.png cannot be read"
        in capfd.readouterr().err
    )


@pytest.mark.slow
def test_lpips_and_fvd_with_the_user_s_weights(
    lpips_weights: Path, i3d_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features: list[np.ndarray] = []
    original = VideoFeatures.__call__
    monkeypatch.setattr(
        VideoFeatures,
        "__call__",
        lambda self, frames: features.append(original(self, frames)) or features[-1],
    )
    for name in ("real/a.png", "made/a.png", "real/b.gif", "made/b.mp4"):
        Path(name).unlink()
    for number in range(2):
        write_video(f"real/{number}.mp4", clip(number, 9))
        write_video(f"made/{number}.mp4", clip(9 + number, 9))
    weights = ("--lpips_weights", str(lpips_weights), "--i3d_weights", str(i3d_weights), "--batch_size", "2")
    assert run("--metric", "psnr", "ssim", "lpips", "fvd", *weights) == 0
    content = figures()
    assert list(content["total"]) == ["psnr", "ssim", "lpips", "fvd"]
    assert list(content["files"][0]) == ["file", "frames", "height", "width", "psnr", "ssim", "lpips"]
    assert len(features) == 4
    distance = frechet_distance_of_samples(np.stack(features[::2]), np.stack(features[1::2]))
    assert content["total"]["fvd"] == pytest.approx(distance, rel=1e-9)
    assert content["total"]["fvd"] > 0 and content["total"]["lpips"] > 0


def test_a_file_in_the_way(capfd: pytest.CaptureFixture[str]) -> None:
    Path("made/evaluation.json").write_text("{}")
    assert run() == 2
    assert capfd.readouterr().err.startswith(
        "opensora: made/evaluation.json exists and holds something else: move it away"
    )
    assert Path("made/evaluation.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--metric", "psnrr"],
            "metric 'psnrr' is unknown (did you mean 'psnr'?): "
            "choose some of psnr, ssim, mean_frame, lpips, fvd",
        ),
        (["--metric", "psnr", "flolpips"], "flolpips is not available: its optical flow network"),
        (["--metric", "psnr", "psnr"], "metrics psnr psnr name one twice"),
        (["--metric", "lpips"], "lpips needs --lpips_weights, the file https://"),
        (
            ["--metric", "fvd"],
            "fvd needs --i3d_weights, the file fvd/videogpt/i3d_pretrained_400.pt of https://",
        ),
        (
            ["--metric", "fvd", "--i3d_weights", "nowhere.safetensors"],
            "i3d_weights nowhere.safetensors does not exist",
        ),
        (
            ["--metric", "lpips", "--lpips_weights", "real/a.png"],
            "real/a.png is not a file of weights: name one that ends in .safetensors",
        ),
        (["--num_frames", "0"], "num_frames 0 is too small"),
        (["--subset_size", "0"], "subset_size 0 is too small"),
        (["--output", "nowhere/x.json"], "output nowhere/x.json cannot be written"),
        (["--real_video_dir", "nowhere"], "folder nowhere does not exist"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(
    words: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    output = capfd.readouterr()
    assert output.err.startswith(f"opensora: {message}") and output.err.count("\n") == 1 and output.out == ""
    assert not Path("made/evaluation.json").exists()


def test_one_pair_makes_no_fvd(i3d_weights: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("--metric", "fvd", "--i3d_weights", str(i3d_weights), "--subset_size", "1") == 2
    assert "fvd compares two sets of videos and there is one pair" in capfd.readouterr().err


def test_missing_partners_are_named(capfd: pytest.CaptureFixture[str]) -> None:
    write_video("real/x.png", clip(0, 1))
    write_video("made/y.png", clip(0, 1))
    assert run() == 2
    assert (
        "made has no partner of x.png; real has no partner of y.png: files are matched by name"
        in capfd.readouterr().err
    )
    write_video("real/a.gif", clip(0, 1))
    assert run() == 2
    assert "real/a.gif and a.png have one name" in capfd.readouterr().err


def test_folders_must_be_named(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate"]) == 2
    assert "option generated_video_dir is required" in capfd.readouterr().err
    assert main(["evaluate", "--generated_video_dir", "made"]) == 2
    assert "name their folder with --real_video_dir" in capfd.readouterr().err
