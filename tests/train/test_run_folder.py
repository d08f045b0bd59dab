"""The options of a run as its folder keeps them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from opensora.cli.arguments import parse
from opensora.train.run_folder import check_resumed, describe_run, write_options
from opensora.train.t2v.options import TrainOptions
from opensora.train.vae.options import TrainVAEOptions


def test_options_are_kept_in_groups_and_read_back(tmp_path: Path) -> None:
    options = TrainOptions(
        model_path="model", vae_latent_folder="latents", betas=(0.8, 0.9), validation_prompts=["a cat"]
    )
    write_options(tmp_path, options)
    content = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert content["optimizer"]["betas"] == [0.8, 0.9] and content["model"]["model_path"] == "model"
    assert list(content)[:3] == ["model", "data", "clips"]
    words = ["--config", str(tmp_path / "config.yaml")]
    assert parse(TrainOptions, words, "opensora train", "train") == options


def test_the_autoencoder_has_the_groups_of_the_transformer(tmp_path: Path) -> None:
    options = TrainVAEOptions(model_config="vae", demo_data="data", freeze_encoder=True)
    write_options(tmp_path, options)
    assert set(yaml.safe_load((tmp_path / "config.yaml").read_text())) == {
        "model",
        "data",
        "clips",
        "loss",
        "training",
        "optimizer",
        "validation",
        "output",
        "parallel",
        "device",
    }
    words = ["--config", str(tmp_path / "config.yaml")]
    assert parse(TrainVAEOptions, words, "opensora train-vae", "train") == options


def t2v(**options: Any) -> TrainOptions:
    return TrainOptions(**{"model_path": "model", "vae_latent_folder": "latents", **options})


NETWORK = {"num_attention_heads": 16, "sample_size": (4, 4)}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    describe_run(Path("run"), t2v(), NETWORK, 0)
    return Path("run")


@pytest.mark.parametrize(
    ("options", "network", "named"),
    [
        ({}, {"num_attention_heads": 8}, "num_attention_heads was 16 and is 8"),
        ({}, {"prediction_type": "v_prediction"}, "prediction_type was None and is 'v_prediction'"),
        ({"max_image_size": 64}, {"sample_size": (8, 8)}, "max_image_size was 512 and is 64"),
        ({"optim": "muon"}, {}, "optim was 'adamw' and is 'muon'"),
        ({"train_text_encoder": True}, {}, "train_text_encoder was False and is True"),
        ({"vae_latent_folder": "other"}, {}, "vae_latent_folder was 'latents' and is 'other'"),
        (
            {"vae_latent_folder": None, "video_data": "list.csv"},
            {},
            "vae_latent_folder was 'latents' and is None",
        ),
    ],
)
def test_a_run_continues_with_its_network_optimizer_and_data(
    run: Path, options: dict[str, Any], network: dict[str, Any], named: str
) -> None:
    with pytest.raises(
        ValueError, match=r"run cannot continue with these options .*--pretrained run"
    ) as caught:
        check_resumed(run, t2v(**options), {**NETWORK, **network}, same_run=True)
    assert named in str(caught.value)
    if "vae_latent_folder" in options:  # another run may read other data
        check_resumed(run, t2v(**options), NETWORK, same_run=False)


def test_other_changes_are_named(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    check_resumed(run, t2v(optim="adam", seed=4, learning_rate=1.0), NETWORK, same_run=True)
    assert "continuing with another seed: 4, and until now 3407" in caplog.text
    assert "continuing with another learning_rate: 1.0, and until now 2e-05" in caplog.text
    caplog.clear()
    check_resumed(run, t2v(vae_latent_folder=str(Path("latents").resolve())), NETWORK, same_run=True)
    assert "vae_latent_folder" in caplog.text and len(caplog.records) == 1


def test_a_list_is_known_by_its_content(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, moved = tmp_path / "first.csv", tmp_path / "moved.csv"
    first.write_text("path,cap\na.mp4,a cat\n")
    describe_run(tmp_path / "run", t2v(video_data=str(first)), NETWORK, 0)
    moved.write_text(first.read_text())
    check_resumed(tmp_path / "run", t2v(video_data=str(moved)), NETWORK, same_run=True)
    first.write_text("path,cap\nb.mp4,a dog\n")
    check_resumed(tmp_path / "run", t2v(video_data=str(first)), NETWORK, same_run=True)
    assert "the content of video_data has changed since the run was last started" in caplog.text


def test_the_history_has_a_line_a_start_and_bears_a_cut_one(run: Path) -> None:
    describe_run(run, t2v(seed=5), NETWORK, 7)
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [(line["step"], line["options"]["seed"]) for line in lines] == [(0, 3407), (7, 5)]
    with open(run / "history.jsonl", "a") as file:
        file.write('{"time": "20')
    with pytest.raises(ValueError, match="optim was 'adamw' and is 'muon'"):
        check_resumed(run, t2v(seed=5, optim="muon"), NETWORK, same_run=True)


def test_a_history_that_cannot_be_read_is_said(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    (run / "history.jsonl").write_bytes(b"\xff\xfe" * 50)
    check_resumed(run, t2v(seed=5), NETWORK, same_run=True)
    assert "no line of run/history.jsonl can be read, so the options are not compared" in caplog.text
