"""`opensora generate-class`: files, sidecars, labels by name and number, and bad requests."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from opensora.cli import main
from opensora.files import read_sidecar
from opensora.media.reader import probe, read_video
from opensora.models import CausalVAE, Latte
from opensora.models.latte_class.config import LatteClassConfig
from opensora.runtime import mindspore
from tests.models.srvgg.test_model import small_weights
from tests.small_model import VAE
from tests.train.small import words

LATTE = LatteClassConfig(
    num_layers=1, num_attention_heads=2, attention_head_dim=8, num_classes=3,
    class_names=("ant", "Bee", "cow"), sample_size=(4, 4), video_length=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder, with and without classes."""
    folder, rng, ms = tmp_path_factory.mktemp("classes"), np.random.default_rng(0), mindspore()
    for name, config in (("named", LATTE), ("free", LATTE.changed(num_classes=0, class_names=()))):
        model = Latte.initialise(config, rng)
        model.weights = {
            key: ms.Tensor(rng.normal(0, 0.2, value.shape).astype(np.float32))
            for key, value in model.weights.items()
        }
        model.save_pretrained(folder / name / "5x32x32")
    CausalVAE.initialise(VAE, rng).save_pretrained(folder / "named" / "vae")
    return folder


def run(model: Path, *labels: str, code: int = 0, **options: object) -> None:
    settings = {"model_path": model, "num_sampling_steps": 2, "save_img_path": "out", **options}
    assert main([*words("generate-class", **settings), *labels]) == code


def test_videos_of_names_and_numbers(classes: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(classes / "named", "cow", "1", num_videos_per_label=2, seed=5)
    files = sorted(Path("out").glob("*.mp4"))
    assert [path.name for path in files] == ["0000-cow.mp4", "0001-cow.mp4", "0002-Bee.mp4", "0003-Bee.mp4"]
    assert read_video(files[0]).shape == (5, 32, 32, 3)
    sidecars = [read_sidecar(path.with_suffix(".json")) for path in files]
    recipes = [sidecar["recipe"] for sidecar in sidecars]
    assert [(recipe["class"], recipe["label"], recipe["seed"]) for recipe in recipes] == [
        ("cow", 2, 5), ("cow", 2, 6), ("Bee", 1, 7), ("Bee", 1, 8),
    ]  # fmt: skip
    assert set(recipes[0]["weights"]) == {"transformer", "vae"}
    caplog.clear()
    run(classes / "named", "cow", "1", num_videos_per_label=2, seed=5)
    assert "skipping 4 of 4 videos" in caplog.text
    command = shlex.split(sidecars[3]["command"])
    assert main([*command[1:], "--save_img_path=again"]) == 0
    again = next(Path("again").glob("*.mp4"))
    np.testing.assert_array_equal(read_video(again), read_video(files[3]))


def test_frames_are_enlarged_and_interpolated(classes: Path) -> None:
    """After decoding, as by `generate`; the sidecar says so, and its command makes the same video."""
    save_file(small_weights(), "small.safetensors")
    run(classes / "named", "cow", upscale=2, upscale_weights="small.safetensors", interpolate=2, fps=8)
    (path,) = Path("out").glob("*.mp4")
    assert read_video(path).shape == (10, 64, 64, 3) and probe(path).fps == 16
    sidecar = read_sidecar(path.with_suffix(".json"))
    assert sidecar["recipe"]["upscale"]["factor"] == sidecar["recipe"]["interpolate"]["factor"] == 2
    command = shlex.split(sidecar["command"])
    assert main([*command[1:], "--save_img_path=again"]) == 0
    assert next(Path("again").glob("*.mp4")).read_bytes() == path.read_bytes()


def test_all_classes_and_a_random_one(classes: Path) -> None:
    run(classes / "named", "all", num_frames=1)
    assert sorted(path.name for path in Path("out").glob("*.png")) == [
        "0000-ant.png", "0001-Bee.png", "0002-cow.png",
    ]  # fmt: skip
    run(classes / "named", num_frames=1, save_img_path="random", num_videos_per_label=3, seed=1)
    drawn = [
        json.loads(path.read_text())["recipe"]["label"] for path in sorted(Path("random").glob("*.json"))
    ]
    assert len(drawn) == 3 and set(drawn) <= {0, 1, 2}


def test_an_unconditional_model_takes_the_autoencoder_of_another(classes: Path) -> None:
    run(classes / "free", ae_path=classes / "named", num_frames=1, num_videos_per_label=2)
    assert sorted(path.name for path in Path("out").glob("*.png")) == ["0000-video.png", "0001-video.png"]


@pytest.mark.parametrize(
    ("folder", "labels", "options", "message"),
    [
        ("named", ["cat"], {}, "choose ant, Bee, cow, or a number from 0 to 2"),
        ("free", ["cow"], {"ae_path": "NAMED"}, "label 'cow' has no effect: this model is unconditional"),
        ("free", [], {}, "has no vae/config.json"),
        ("named", [], {"ae_path": "demo"}, "has 16 latent channels, but the model takes 4"),
        ("named", [], {"image_size": 40}, "height 40 is not a multiple of 16"),
        ("named", [], {"sample_method": "ddqm"}, "sampler 'ddqm' is unknown"),
        ("named/vae", [], {}, "has no depth"),
        ("none", [], {}, "none does not exist: check the path"),
        ("", [], {}, "must have a config.json or one folder with it beside vae, and has none"),
        ("named", ["all", "cow"], {}, "label all names every class: leave out the others"),
        ("named", [], {"guidance_scale": "nan"}, "guidance_scale"),
        ("named", [], {"interpolate_weights": "a.pth"}, "has no effect without --interpolate"),
        ("named", [], {"upscale": 4, "upscale_weights": "none.pth"}, "none.pth does not exist"),
        ("named", [], {"interpolate": 2, "num_frames": 1}, "an image has one: leave it out"),
    ],
)
def test_bad_requests(
    classes: Path,
    folder: str,
    labels: list[str],
    options: dict[str, object],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if options.get("ae_path") == "NAMED":
        options = {"ae_path": classes / "named"}
    run(classes / folder, *labels, code=2, **options)
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not Path("out").exists()


def test_other_files_are_not_overwritten(classes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out/0000-ant.png").write_bytes(b"mine")
    run(classes / "named", "ant", code=2, num_frames=1)
    assert "exists and was made otherwise" in capsys.readouterr().err
    assert Path("out/0000-ant.png").read_bytes() == b"mine"
