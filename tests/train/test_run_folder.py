"""The options of a run as its folder keeps them."""

from pathlib import Path

import yaml

from opensora.cli.arguments import parse
from opensora.train.run_folder import write_options
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
        "model", "data", "clips", "loss", "training", "optimizer", "validation", "output", "parallel", "device",
    }  # fmt: skip
    words = ["--config", str(tmp_path / "config.yaml")]
    assert parse(TrainVAEOptions, words, "opensora train-vae", "train") == options
