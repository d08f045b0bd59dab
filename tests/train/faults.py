"""`make faults`: a training run that is killed at random moments ends bit for bit as an uninterrupted one.

Two uninterrupted runs must agree. A third run is killed (SIGKILL) repeatedly, half the time during a save,
and started again by the same command. After every kill its newest complete checkpoint must equal that of the
first run, and at the end all metrics except times must.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from opensora.train.checkpoint import latest_checkpoint, load_checkpoint
from tests.train.small import command, make_place, words

KILLS = 20
STEPS_PER_KILL, SAVE_EVERY = 20, 4
TIMES = ("seconds_", "samples_per_second", "share_of_peak")


def main(kills: int) -> None:
    rng = random.Random(0)
    steps = kills * STEPS_PER_KILL
    with tempfile.TemporaryDirectory() as folder:
        place = make_place(Path(folder))
        clips = {"num_clips": 16, "num_frames": 5, "resolution": 32}
        command(
            "train-vae",
            demo_data=place / "data",
            model_config=place / "model/vae",
            output_dir=place / "vae",
            max_train_steps=1,
            video_num_frames=5,
            resolution=32,
            batch_size=1,
            num_validation_clips=1,
        )
        command("convert", src=place / "vae", target=place / "model")
        command(
            "encode-latents",
            demo_data=place / "data",
            vae=place / "model/vae",
            output_path=place / "latents",
            **clips,
        )
        one, two, killed = (place / name for name in ("one", "two", "killed"))
        for run in (one, two):
            assert start(place, run, steps).wait() == 0
            report(f"{run.name}: {steps} steps without a kill")
        same_checkpoints(one, two, sorted(path.name for path in (one / "checkpoints").glob("step-*")))
        assert metrics(one) == metrics(two), "two uninterrupted runs have other metrics"
        report("two uninterrupted runs agree to the bit")
        for number, during_save in enumerate([False, True] * (kills // 2)):
            saving = kill(start(place, killed, steps), killed, rng, during_save)
            newest = latest_checkpoint(killed)
            if newest is not None:
                load_checkpoint(newest)
                same_checkpoints(one, killed, [newest.name])
            during = " during a save" if saving else ""
            report(f"kill {number + 1}/{kills}{during}: newest checkpoint {newest and newest.name}")
        assert start(place, killed, steps).wait() == 0
        same_checkpoints(one, killed, [f"step-{steps:08d}"])
        assert metrics(one) == metrics(killed), "the killed run has other metrics"
        report(
            f"after {kills} kills the run equals the uninterrupted one: weights, averages, optimizer, metrics"
        )


def start(place: Path, run: Path, steps: int) -> subprocess.Popen[bytes]:
    """Start or continue a run in a process of its own."""
    latents = place / "latents"
    settings: dict[str, Any] = {
        "model_path": place / "model",
        "train_text_encoder": True,
        "vae_latent_folder": latents,
        "validation_latent_folder": latents,
        "output_dir": run,
        "max_train_steps": steps,
        "checkpointing_steps": SAVE_EVERY,
        "ckpt_max_keep": 0,
        "log_interval": 3,
        "validation_steps": 50,
        "batch_size": 2,
        "gradient_accumulation_steps": 2,
        "lr_warmup_steps": 5,
        "learning_rate": 1e-3,
        "lr_scheduler": "cosine",
        "ema_decay": 0.9,
        "init_loss_scale": 1024,
        "scale_window": 7,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "opensora", *words("train", **settings)], stderr=subprocess.DEVNULL
    )


def kill(process: subprocess.Popen[bytes], run: Path, rng: random.Random, during_save: bool) -> bool:
    """Kill a run some time after it goes on, or in the middle of a save; whether a save was under way."""
    known = set(building(run))
    while not (set(building(run)) - known):  # its first save of this life: compiled, and training
        assert process.poll() is None, "the run ended before it was killed: raise STEPS_PER_KILL"
        time.sleep(0.0005)
    time.sleep(rng.uniform(0, 1))
    if during_save:
        while any(building(run)):
            time.sleep(0.0005)
        while not any(building(run)):
            assert process.poll() is None, "the run ended before it was killed: raise STEPS_PER_KILL"
            time.sleep(0.0005)
        time.sleep(rng.uniform(0, 0.03))
    process.kill()
    process.wait()
    return any(building(run))


def building(run: Path) -> Iterator[Path]:
    return (run / "checkpoints").glob(".step-*")


def same_checkpoints(run: Path, other: Path, names: list[str]) -> None:
    """Compares the manifests, which hold the sha256 of every file."""
    for name in names:
        first, second = (
            json.loads((folder / "checkpoints" / name / "manifest.json").read_text())
            for folder in (run, other)
        )
        different = [file for file in first.keys() | second.keys() if first.get(file) != second.get(file)]
        assert not different, (
            f"{', '.join(different)} of {name} are not the same in {run.name} and {other.name}"
        )


def metrics(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.startswith(TIMES)} for line in lines]


def report(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else KILLS)
