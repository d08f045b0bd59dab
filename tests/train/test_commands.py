"""From a data set to a video by commands, at toy size; a resumed run equals an uninterrupted one."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from opensora.cli import main
from opensora.data.caches.latents import LatentCache
from opensora.files import hash_file
from opensora.media.reader import read_video
from opensora.models import CausalVAE, T5Encoder
from opensora.weights import load_config, weight_files
from tests.data.material import latent_cache, write_set
from tests.models.causal_vae.test_images import write_image_autoencoder
from tests.train.small import T5, VAE, command, make_place

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_place(tmp_path_factory.mktemp("training"))


def train_vae(place: Path, run: str, steps: int) -> dict[str, np.ndarray]:
    command(
        "train-vae",
        demo_data=place / "data",
        model_config=place / "model" / "vae",
        output_dir=place / run,
        max_train_steps=steps,
        video_num_frames=5,
        resolution=32,
        batch_size=1,
        num_validation_clips=1,
        lr_warmup_steps=2,
        learning_rate=1e-3,
        log_interval=1,
        ema_decay=0.9,
    )
    return load_file(place / run / "checkpoints" / f"step-{steps:08d}" / "ema.safetensors")


def train(place: Path, run: str, steps: int, **options: object) -> dict[str, np.ndarray]:
    command(
        "train",
        model_path=place / "model",
        train_text_encoder=True,
        vae_latent_folder=place / "latents",
        validation_latent_folder=place / "latents",
        output_dir=place / run,
        max_train_steps=steps,
        batch_size=2,
        lr_warmup_steps=2,
        learning_rate=1e-3,
        log_interval=1,
        ema_decay=0.9,
        **options,
    )
    return {
        f"{group}/{name}": value
        for group in ("model", "ema", "text_encoder", "text_encoder_ema", "optimizer-0-of-1")
        for name, value in load_file(
            place / run / "checkpoints" / f"step-{steps:08d}" / f"{group}.safetensors"
        ).items()
    }


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_data_set_to_video(place: Path) -> None:
    train_vae(place, "vae-parts", 2)
    parts, whole = train_vae(place, "vae-parts", 4), train_vae(place, "vae-whole", 4)
    assert all(np.array_equal(parts[name], value) for name, value in whole.items())
    assert losses(place / "vae-parts") == losses(place / "vae-whole")
    assert (place / "vae-whole" / "samples" / "step-00000004.png").is_file()

    command(
        "convert", src=place / "vae-whole", target=place / "model", demo_data=place / "data", dtype="float16"
    )
    command(
        "encode-latents",
        demo_data=place / "data",
        vae=place / "model" / "vae",
        output_path=place / "latents",
        num_clips=4,
        num_frames=5,
        resolution=32,
        batch_size=2,
    )
    cache = LatentCache(place / "latents")
    assert len(cache) == 4 and cache.moments(3).shape == (8, 2, 4, 4)

    train(place, "parts", 2)
    (place / "model" / "generate.yaml").write_text(
        "num_sampling_steps: 2\nsample_method: DDIM\nguidance_scale: 2\nseed: 0\nfps: 8\n"
    )
    (place / "prompts.txt").write_text("an elephant\na tiger\n")
    shown = {"validation_prompts": place / "prompts.txt", "validation_steps": 3}
    resumed, straight = train(place, "parts", 4), train(place, "whole", 4, **shown)
    for name, value in straight.items():
        assert resumed[name].tobytes() == value.tobytes(), name
    assert losses(place / "parts") == losses(place / "whole")
    samples = place / "whole" / "samples"
    for step in ("step-00000003", "step-00000004"):
        assert {path.name for path in (samples / step).iterdir()} == {
            "0000-an_elephant.mp4",
            "0001-a_tiger.mp4",
        }
        assert read_video(samples / f"{step}.png").shape == (1, 2 * 32, 5 * 32, 3)
        assert read_video(samples / step / "0001-a_tiger.mp4").shape == (5, 32, 32, 3)

    command("convert", src=place / "whole", target=place / "model", dtype="float16")
    assert load_config(place / "model" / "5x32x32")["video_length"] == 2
    video = place / "videos"
    assert (
        main(
            [
                "generate",
                "an elephant",
                "--model_path",
                str(place / "model"),
                "--save_img_path",
                str(video),
                "--num_sampling_steps=2",
            ]
        )
        == 0
    )
    assert len(list(video.glob("*.mp4"))) == 1


def test_a_trained_text_encoder_goes_with_its_transformer(
    place: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In `generate --pretrained_ckpt` and `train --pretrained`, with the encoder trained on or frozen."""
    monkeypatch.chdir(place)
    caplog.set_level("INFO", "opensora")
    for part in ("vae", "5x32x32", "text_encoder"):
        shutil.copytree(
            place / "model" / part, f"joint/{part}", ignore=shutil.ignore_patterns("*.safetensors")
        )
    T5Encoder.initialise(T5, np.random.default_rng(0)).save_pretrained("joint/text_encoder")
    moments = np.random.default_rng(0).standard_normal((4, 8, 2, 4, 4)).astype(np.float32)
    latent_cache(Path("joint-latents"), [f"clip {number}" for number in range(4)], moments)
    settings = {"model_path": "joint", "vae_latent_folder": "joint-latents", "batch_size": 2}
    settings |= {"lr_warmup_steps": 0, "learning_rate": 1e-2, "max_train_steps": 2}
    command("train", **settings, train_text_encoder=True, output_dir="mine")
    trained = weight_files("mine")[0].with_name("text_encoder_ema.safetensors")

    taken: list[Path] = []
    load = T5Encoder.load_weights
    monkeypatch.setattr(
        T5Encoder, "load_weights", lambda self, source: (taken.append(Path(source)), load(self, source))[1]
    )
    for frozen in (False, True):
        command(
            "train", **settings, train_text_encoder=not frozen, output_dir=f"next-{frozen}", pretrained="mine"
        )
    assert taken == [trained, trained]
    CausalVAE.initialise(VAE, np.random.default_rng(0)).save_pretrained("joint/vae")
    words = ["generate", "an elephant", "--model_path=joint", "--num_sampling_steps=1", "--seed=0"]
    assert main([*words, "--save_img_path=out", "--pretrained_ckpt=mine"]) == 0
    assert taken[-1] == trained
    recipe = json.loads(Path("out/0000-an_elephant.json").read_text())["recipe"]
    assert recipe["weights"]["text_encoder"]["text_encoder_ema.safetensors"] == hash_file(trained)

    following = [line.removeprefix("next: ") for line in caplog.messages if line.startswith("next: ")][:2]
    for line in following:  # the commands that the first training named
        assert (
            main([*shlex.split(line)[1:], *(["--num_sampling_steps=1"] if " generate " in line else [])]) == 0
        )
    assert len(following) == 2 and len(list(Path("sample_videos").glob("*.mp4"))) == 1


def test_a_transformer_that_predicts_the_velocity(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From training to a video; its weights do not pass for those of another prediction type."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "model", "model", ignore=shutil.ignore_patterns("*.safetensors"))
    moments = np.random.default_rng(0).standard_normal((4, 8, 2, 4, 4)).astype(np.float32)
    latent_cache(Path("latents"), [f"clip {number}" for number in range(4)], moments)
    settings = {"model_path": "model", "vae_latent_folder": "latents", "batch_size": 2, "lr_warmup_steps": 0}
    settings |= {"train_text_encoder": True, "timestep_sampling": "logit_normal", "max_train_steps": 1}
    command("train", **settings, prediction_type="v_prediction", output_dir="run")
    words = [f"--{name}={value}" for name, value in settings.items()]
    assert main(["train", *words, "--pretrained=run", "--output_dir=other"]) == 2
    assert "run has the prediction_type 'v_prediction', but the model's is epsilon" in capsys.readouterr().err
    command("convert", src="run", target="new", base="model")
    assert load_config(Path("new/5x32x32"))["prediction_type"] == "v_prediction"
    CausalVAE.initialise(VAE, np.random.default_rng(0)).save_pretrained("new/vae")
    assert main(["generate", "an elephant", "--model_path=new", "--num_sampling_steps=1"]) == 0
    assert len(list(Path("sample_videos").glob("*.mp4"))) == 1


def test_v10_with_an_autoencoder_of_images(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Sixteen frames and four of them as pictures, encoded one by one, and the commands that follow."""
    caplog.set_level("INFO", "opensora")
    text_encoder = shutil.copytree(place / "model" / "text_encoder", tmp_path / "t5")
    T5Encoder.initialise(T5, np.random.default_rng(0)).save_pretrained(text_encoder)
    clips = write_set(tmp_path, 2, length=20)
    settings = {
        "config": "train/v1.0/16x512x512", "model_path": place / "model", "video_data": clips,
        "ae_path": write_image_autoencoder(tmp_path / "image-vae"), "text_encoder_name": text_encoder,
        "device": "CPU", "precision": "fp32", "max_train_steps": 1, "max_image_size": 32,
    }  # fmt: skip
    command("train", **settings)
    assert load_config(Path("runs/v1.0-16x512x512"))["video_length"] == 16
    following = [line.removeprefix("next: ") for line in caplog.messages if line.startswith("next: ")]
    for line in following:
        extra = ["--num_sampling_steps=1"] if " generate " in line else []
        assert main([*shlex.split(line)[1:], *extra]) == 0
    (video,) = Path("sample_videos").glob("*.mp4")
    assert read_video(video).shape == (16, 32, 32, 3)


def test_missing_data_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--vae_latent_folder=nowhere",
        "--validation_latent_folder=nowhere",
        f"--model_path={place / 'model'}",
    ]
    assert main(["train", *words]) == 2
    assert (
        capsys.readouterr().err == "opensora: nowhere holds no cache: "
        "make one with `opensora encode-latents` or `opensora embed-text`\n"
    )
