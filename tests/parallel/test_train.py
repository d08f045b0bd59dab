"""Training by several processes against training by one, through the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from opensora.cli import main
from tests.parallel import launch

pytestmark = pytest.mark.slow
SAMPLES = 4  # of a step, over all processes


def words(place: Path, run: str, steps: int, batch_size: int, **options: object) -> list[str]:
    settings: dict[str, object] = {
        "model_path": place / "model",
        "vae_latent_folder": place / "latents",
        "validation_latent_folder": place / "latents",
        "output_dir": place / run,
        "max_train_steps": steps,
        "batch_size": batch_size,
        "learning_rate": 1e-2,
        "lr_warmup_steps": 0,
        "optim_eps": 1e-4,
        "max_grad_norm": 0.5,
        "log_interval": 1,
        **options,
    }
    return ["train", *(f"--{name}={value}" for name, value in settings.items())]


def weights(run: Path, step: int) -> dict[str, np.ndarray]:
    """Everything that a checkpoint holds of the networks, moving averages included, but key biases, whose gradient is rounding alone."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    groups = {group: load_file(folder / f"{group}.safetensors") for group in ("model", "ema", "text_encoder", "text_encoder_ema")}
    return {f"{group} {name}": value for group, arrays in groups.items() for name, value in arrays.items() if "to_k.bias" not in name}


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def assert_same(run: Path, reference: Path, step: int) -> None:
    expected = weights(reference, step)
    for name, value in weights(run, step).items():
        assert np.abs(value - expected[name]).max() <= 1e-5 * np.abs(expected[name]).max(), name
    np.testing.assert_allclose(losses(run), losses(reference)[: len(losses(run))], rtol=1e-4)


@pytest.fixture(scope="module")
def alone(place: Path) -> Path:
    """Ten steps in one process, with a checkpoint of each fifth."""
    assert main(words(place, "alone", 10, SAMPLES, checkpointing_steps=5)) == 0
    return place / "alone"


def test_two_processes_share_frames(place: Path, alone: Path) -> None:
    job = launch.run(2, ["-m", "opensora", *words(place, "frames", 10, SAMPLES, sp_size=2)], place / "frames-logs")
    assert job.code == 0, job
    assert_same(place / "frames", alone, 10)
    assert "step 10/10" in job.terminal and "step 10/10" in job.logs[1]


def test_four_processes_then_two_then_one(place: Path, alone: Path) -> None:
    """Frames, samples and the optimizer's states shared by four; the run goes on with samples and states shared by two, then alone."""
    sharded = {"parallel_mode": "optim", "gradient_accumulation_steps": 2}
    job = launch.run(4, ["-m", "opensora", *words(place, "fewer", 4, 1, sp_size=2, **sharded)], place / "four-logs")
    assert job.code == 0, job
    folder = place / "fewer" / "checkpoints" / "step-00000004"
    sizes = [sum(array.nbytes for array in load_file(path).values()) for path in sorted(folder.glob("optimizer-*-of-4.safetensors"))]
    whole = sum(array.nbytes for array in load_file(alone / "checkpoints" / "step-00000005" / "optimizer-0-of-1.safetensors").values())
    assert len(sizes) == 4 and max(sizes) <= whole / 4 + 64
    job = launch.run(2, ["-m", "opensora", *words(place, "fewer", 7, 1, **sharded)], place / "two-logs")
    assert job.code == 0, job
    assert main(words(place, "fewer", 10, SAMPLES)) == 0
    assert_same(place / "fewer", alone, 10)
