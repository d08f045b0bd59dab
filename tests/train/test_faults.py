"""What goes wrong during training, as a user sees it: exit code, sentence, files. A kill is `make faults`."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from opensora.cli import main
from opensora.models import CausalVAE
from opensora.weights import latest_checkpoint
from tests.data.material import latent_cache, write_set
from tests.train.small import VAE, make_place, words

pytestmark = pytest.mark.slow

CLIPS = 12
BLOCK = "block-00000001.safetensors"  # clips 4 to 7


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = make_place(tmp_path_factory.mktemp("faults"))
    moments = np.random.default_rng(0).standard_normal((CLIPS, 8, 2, 4, 4)).astype(np.float32)
    latent_cache(place / "latents", [f"clip {number}" for number in range(CLIPS)], moments, dtype="float32")
    return place


@pytest.fixture
def latents(place: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(place / "latents", tmp_path / "latents"))


def train(place: Path, **options: Any) -> int:
    """One epoch, unless `options` say otherwise."""
    settings = {
        "model_path": place / "model",
        "train_text_encoder": True,
        "max_train_steps": CLIPS // 2,
        "batch_size": 2,
        "checkpointing_steps": 2,
        "ckpt_max_keep": 0,
        "lr_warmup_steps": 0,
        "learning_rate": 1e-3,
        "log_interval": 1,
        **options,
    }
    return main(words("train", **settings))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def flip(path: Path, place: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def last_weights(run: Path) -> dict[str, bytes]:
    folder = latest_checkpoint(run)
    assert folder is not None
    return {name: value.tobytes() for name, value in load_file(folder / "model.safetensors").items()}


def test_a_flipped_byte_in_a_cache_costs_one_sample(place: Path, latents: Path, tmp_path: Path) -> None:
    flip(latents / BLOCK)
    for run in ("one", "two"):
        assert train(place, vae_latent_folder=latents, output_dir=tmp_path / run) == 0
        (line,) = lines(tmp_path / run / "quarantine.jsonl")
        assert f"{BLOCK} is damaged at" in line["reason"] and line["path"].removeprefix("clip ") in "4567"
    assert last_weights(tmp_path / "one") == last_weights(tmp_path / "two")  # the replacement is the same one


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_damaged_shard_is_replaced_until_there_are_too_many(
    place: Path, latents: Path, tmp_path: Path, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if damage == "missing":
        (latents / BLOCK).unlink()
    else:
        os.truncate(latents / BLOCK, (latents / BLOCK).stat().st_size // 2)
    assert train(place, vae_latent_folder=latents, output_dir=tmp_path / "run") == 0
    assert {line["path"] for line in lines(tmp_path / "run" / "quarantine.jsonl")} == {
        f"clip {number}" for number in range(4, 8)
    }
    assert train(place, vae_latent_folder=latents, output_dir=tmp_path / "strict", max_bad_rate=0.02) == 2
    error = capfd.readouterr().err
    assert (
        "samples could not be read, more than max_bad_rate 0.02 allows" in error
        and BLOCK in error
        and "Traceback" not in error
    )


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_continues(
    place: Path, latents: Path, tmp_path: Path, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train(place, vae_latent_folder=latents, output_dir=tmp_path) == 0
    newest, expected = latest_checkpoint(tmp_path), last_weights(tmp_path)
    assert newest is not None
    file = newest / "optimizer-0-of-1.safetensors"
    if damage == "missing":
        file.unlink()
    elif damage == "flipped":
        flip(file, 1000)
    else:
        os.truncate(file, file.stat().st_size - 1)
    assert train(place, vae_latent_folder=latents, output_dir=tmp_path) == 2
    (error,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("opensora: ")]
    assert (
        f"{file} is missing or was changed after it was saved: move {newest.name} away, and the run continues"
        in error
    )
    newest.rename(tmp_path / "damaged")
    assert train(place, vae_latent_folder=latents, output_dir=tmp_path) == 0
    assert last_weights(tmp_path) == expected


@pytest.mark.parametrize("where", ["a checkpoint", "metrics"])
def test_a_full_disk_is_told_and_the_run_continues_when_there_is_room(
    place: Path,
    latents: Path,
    tmp_path: Path,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert train(place, vae_latent_folder=latents, output_dir=whole) == 0
    assert train(place, vae_latent_folder=latents, output_dir=run, max_train_steps=2) == 0
    metrics = run / "metrics.jsonl"
    if where == "metrics":
        metrics.rename(run / "kept")
        metrics.symlink_to("/dev/full")
    else:
        fsync = os.fsync

        def full(file: int) -> None:
            if any((run / "checkpoints").glob(".step-*")):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(file)

        monkeypatch.setattr(os, "fsync", full)
    capfd.readouterr()
    assert train(place, vae_latent_folder=latents, output_dir=run) == 2
    monkeypatch.undo()
    (error,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("opensora: ")]
    assert "is full" in error and "free space and start the command again" in error
    newest = latest_checkpoint(run)
    assert newest is not None and newest.name == "step-00000002"
    if where == "metrics":
        (run / "kept").rename(metrics)
    assert train(place, vae_latent_folder=latents, output_dir=run) == 0
    assert last_weights(run) == last_weights(whole)
    assert [line["loss"] for line in lines(metrics)] == [
        line["loss"] for line in lines(whole / "metrics.jsonl")
    ]


def test_a_sample_of_nan_is_replaced(place: Path, tmp_path: Path) -> None:
    moments = np.random.default_rng(0).standard_normal((CLIPS, 8, 2, 4, 4)).astype(np.float32)
    moments[5, 0, 0, 0, 0] = np.nan
    with pytest.MonkeyPatch.context() as unchecked:  # the writer refuses such numbers
        unchecked.setattr(np, "isfinite", lambda values: np.ones(values.shape, bool))
        latent_cache(
            tmp_path / "latents", [f"clip {number}" for number in range(CLIPS)], moments, dtype="float32"
        )
    assert train(place, vae_latent_folder=tmp_path / "latents", output_dir=tmp_path / "run") == 0
    (line,) = lines(tmp_path / "run" / "quarantine.jsonl")
    assert line["path"] == "clip 5" and "holds NaN or infinite values" in line["reason"]
    assert all(np.isfinite(line["loss"]) for line in lines(tmp_path / "run" / "metrics.jsonl"))


def test_losses_that_are_not_finite_move_nothing_and_end_the_run(
    place: Path, latents: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The first step throws the weights so far that no later loss is a number."""
    assert (
        train(place, vae_latent_folder=latents, output_dir=tmp_path, learning_rate=1e30, max_skipped_steps=3)
        == 2
    )
    error = capfd.readouterr().err.splitlines()
    skipped = [line for line in error if "the update was skipped" in line]
    assert [line.partition(":")[0] for line in skipped] == ["step 2", "step 3"]
    assert all("grad_norm is" in line and "with the samples clip " in line for line in skipped)
    assert (
        error[-1].startswith("opensora: step 4: ")
        and "3 steps in a row were skipped: check these samples" in error[-1]
    )
    written = lines(tmp_path / "metrics.jsonl")
    assert [line["skipped_steps"] for line in written if "skipped_steps" in line] == [1, 2]


def test_videos_and_pictures_from_files_some_of_which_cannot_be_read(place: Path, tmp_path: Path) -> None:
    """Clips of 5 frames with a picture each, cut and encoded during the run."""
    CausalVAE.initialise(VAE, np.random.default_rng(0)).save_pretrained(place / "model" / "vae")
    videos, pictures = write_set(tmp_path, 6, broken=(2,)), write_set(tmp_path, 6, "pictures")
    (tmp_path / "videos, all of them" / "clip, 4.mp4").unlink()
    settings = {
        "video_data": videos,
        "image_data": pictures,
        "use_image_num": 1,
        "num_frames": 5,
        "max_image_size": 32,
    }
    for run in ("one", "two"):
        assert train(place, **settings, output_dir=tmp_path / run, max_train_steps=3) == 0
    assert last_weights(tmp_path / "one") == last_weights(tmp_path / "two")
    reasons = {
        Path(line["path"]).name: line["reason"] for line in lines(tmp_path / "one" / "quarantine.jsonl")
    }
    assert reasons.keys() == {"clip, 2.mp4", "clip, 4.mp4"}
    assert "it has no video stream" in reasons["clip, 2.mp4"] and "does not exist" in reasons["clip, 4.mp4"]
    assert all(np.isfinite(line["loss"]) for line in lines(tmp_path / "one" / "metrics.jsonl"))
