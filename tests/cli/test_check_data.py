"""`opensora check-data` tells what a run would use, and refuses what a run would refuse."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opensora.cli import main
from opensora.weights.folder import DEMO
from tests.data.material import latent_cache, write_set

CUT = ("--num_frames", "5", "--max_image_size", "16")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("check")
    write_set(place, 5, broken=(1,))
    records = json.loads((place / "videos.json").read_text())
    (place / "videos.json").write_text(
        json.dumps([*records, {"path": "x.mp4"}, {"path": "../y.mp4", "cap": "y"}])
    )
    write_set(place, 4, "pictures")
    return place


def test_everything_is_opened_and_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--video_data",
        str(place / "videos.txt"),
        "--image_data",
        str(place / "pictures.txt"),
        "--use_image_num",
        "2",
        *CUT,
    ]
    assert main(["check-data", *words, "--all", "--batch_size", "2", "--contact_sheet", "sheet.png"]) == 0
    report = capsys.readouterr().out
    broken = place / "videos, all of them" / "clip, 1.mp4"
    for line in (
        "videos: 5 records",
        "  not used: 1, cap is neither a caption nor a list of captions; the first is x.mp4",
        "  not used: 1, the path leaves the folder of its data set; the first is ../y.mp4",
        "  opened 5, 1 cannot be used",
        f"  rejected: 1, it cannot be read as a video: it has no video stream; the first is {broken}",
        "  frames: 12 to 12, median 12",
        "  height x width: 32x48 (4)",
        "pictures: 4 records",
        "a sample: pixels 3x7x16x16, latent_mask 4x2x2, input_ids 3x300, text_mask 3x300",
        "an epoch: 5 samples, 3 steps of 2",
        "contact sheet: sheet.png",
    ):
        assert f"{line}\n" in report
    sheet = np.asarray(Image.open("sheet.png"))
    assert sheet.shape == (3 * 108, 3 * 96, 3) and sheet.std() > 10


def test_a_sample_of_a_long_list(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            [
                "check-data",
                "--image_data",
                str(place / "pictures.txt"),
                "--num_frames",
                "1",
                "--num_samples",
                "2",
            ]
        )
        == 0
    )
    report = capsys.readouterr().out
    assert (
        "  opened 2, 0 cannot be used\n" in report
        and "videos" not in report
        and "an epoch: 4 samples, 4 steps of 1\n" in report
    )


def test_cached_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    latent_cache(tmp_path / "latents", ["a", "b", "c"], np.zeros((3, 8, 2, 4, 4), np.float32))
    assert main(["check-data", "--vae_latent_folder", "latents"]) == 0
    report = capsys.readouterr().out
    assert "videos: 3 cached clips\n" in report and "height x width of latents: 4x4 (3)\n" in report
    assert "a sample: latents 4x2x4x4, latent_mask 2x4x4, input_ids 1x300, text_mask 1x300\n" in report


def test_a_list_that_a_run_would_refuse(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("sheet.png").touch()
    for words, message in (
        (["--video_data", "nowhere.txt"], "data list nowhere.txt does not exist"),
        ([], "there is no data"),
        (
            ["--video_data", str(place / "videos.txt"), "--text_embed_cache"],
            "names no folder of text embeddings",
        ),
        (
            ["--video_data", str(place / "videos.txt"), "--contact_sheet", "sheet.png"],
            "sheet.png exists and is not overwritten",
        ),
        (
            ["--video_data", str(place / "videos.txt"), "--contact_sheet", "sheet.txt"],
            "contact_sheet sheet.txt has another ending than a picture: use .png or .jpg",
        ),
    ):
        assert main(["check-data", *words]) == 2
        assert message in capsys.readouterr().err


def test_a_list_of_which_nothing_can_be_read_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path / "bad", 2, broken=(0, 1))
    assert main(["check-data", "--video_data", "bad/videos.txt", *CUT]) == 0
    assert (
        "a run would stop at its first sample: 16 samples in a row could not be read"
        in capsys.readouterr().out
    )


def test_captions_of_all_opened_items_are_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path, 4)
    records = json.loads((tmp_path / "videos.json").read_text())
    for record, caption in zip(records, ["a cat", "long " * 40, "<b></b>", "a cat <![ \ud800"], strict=True):
        record["cap"] = caption
    (tmp_path / "videos.json").write_text(json.dumps(records))
    words = ["check-data", "--video_data", str(tmp_path / "videos.txt"), *CUT, "--all"]
    assert main([*words, "--model_path", str(DEMO)]) == 0
    report = capsys.readouterr().out
    assert "  captions: 4 of these items\n" in report
    assert (
        "    of them: 1, longer than 24 tokens, so that the end is not read; the first is 'long long"
        in report
    )
    assert "    of them: 1, empty after cleaning; the first is '<b></b>' of" in report
    assert main(words) == 0
    assert "longer than" not in capsys.readouterr().out
