"""Videos made by several processes against those made by one, through the command line."""

from pathlib import Path

import numpy as np
import pytest

from opensora.cli import main
from opensora.media.reader import read_video
from tests.parallel import launch
from tests.small_model import make_model

PROMPTS = ["a cat", "a dog", "an owl"]
FRAMES = 17  # five latent frames, which two processes do not share evenly


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("generate")
    make_model(place / "model")
    return place


def words(place: Path, out: str, *more: str) -> list[str]:
    return [
        "generate",
        *PROMPTS,
        "--model_path",
        f"{place}/model",
        "--save_img_path",
        f"{place}/{out}",
        "--num_frames",
        f"{FRAMES}",
        *more,
    ]


def latents(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.load(path) for path in folder.glob("*.npy")}


def test_frames_and_guidance_shared_by_four(place: Path) -> None:
    assert main(words(place, "one", "--save_latents")) == 0
    shared = words(place, "four", "--save_latents", "--sp_size", "2", "--cfg_parallel")
    job = launch.run(4, ["-m", "opensora", *shared], place / "four-logs")
    assert job.code == 0, job
    expected, found = latents(place / "one"), latents(place / "four")
    assert len(expected) == len(PROMPTS) and expected.keys() == found.keys()
    for name, value in expected.items():
        distance = np.abs(found[name] - value).max() / np.abs(value).max()
        assert distance <= 1e-4, name
        print(f"{name}: latents within {distance:.1e} of their maximum")


def test_prompts_shared_by_two_that_do_not_divide_them(place: Path) -> None:
    assert main(words(place, "alone")) == 0
    (place / "both").mkdir()
    first = "0000-a_cat"
    for suffix in (".mp4", ".json"):  # one is finished
        (place / "both" / f"{first}{suffix}").write_bytes((place / "alone" / f"{first}{suffix}").read_bytes())
    job = launch.run(2, ["-m", "opensora", *words(place, "both")], place / "both-logs")
    assert job.code == 0, job
    assert "skipping 1 of 3 videos" in job.terminal
    expected = {path.name: path.read_bytes() for path in (place / "alone").glob("*.mp4")}
    assert {path.name: path.read_bytes() for path in (place / "both").glob("*.mp4")} == expected and len(
        expected
    ) == len(PROMPTS)
    assert [("a_dog" in log, "an_owl" in log) for log in job.logs] == [(True, False), (False, True)]


def test_one_video_decoded_by_two(place: Path) -> None:
    """Frames shared while it is sampled, and chunks of frames while it is decoded."""
    video = [
        "generate",
        "rain",
        "--model_path",
        f"{place}/model",
        "--num_frames",
        f"{FRAMES}",
        "--save_img_path",
    ]
    assert main([*video, f"{place}/single", "--vae_memory", "chunked"]) == 0
    job = launch.run(
        2, ["-m", "opensora", *video, f"{place}/shared", "--sp_size", "2"], place / "shared-logs"
    )
    assert job.code == 0, job
    expected, found = (read_video(next((place / out).glob("*.mp4"))) for out in ("single", "shared"))
    assert found.shape == expected.shape and np.abs(found.astype(int) - expected.astype(int)).max() <= 2
