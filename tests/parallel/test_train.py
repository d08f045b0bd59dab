"""Training by several processes against training by one, through the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from opensora.cli import main
from tests.parallel import launch

pytestmark = pytest.mark.slow


def words(place: Path, run: str, steps: int, **options: object) -> list[str]:
    settings: dict[str, object] = {
        "model_path": place / "model",
        "output_dir": place / run,
        "max_train_steps": steps,
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
    groups = {path.stem: load_file(path) for path in folder.glob("*.safetensors") if path.stem.startswith(("model", "ema", "text"))}
    return {f"{group} {name}": value for group, arrays in groups.items() for name, value in arrays.items() if "to_k.bias" not in name}


def metrics(run: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def assert_same(run: Path, reference: Path, step: int) -> None:
    expected = weights(reference, step)
    for name, value in weights(run, step).items():
        assert np.abs(value - expected[name]).max() <= 1e-5 * np.abs(expected[name]).max(), name
    for term in ("loss", "validation_mse"):
        found, known = metrics(run, term), metrics(reference, term)
        np.testing.assert_allclose(found[-len(known) :], known, rtol=1e-4)


def test_two_processes_share_frames_and_encoding(place: Path) -> None:
    """Clips of five latent frames and three pictures each, read and encoded during the run; five steps are no whole number of turns."""
    clips = {"num_frames": 17, "max_image_size": 32, "use_image_num": 3, "use_img_from_vid": True, "batch_size": 1}
    data = {"video_data": place / "videos.txt", **clips}
    assert main(words(place, "alone", 5, **data)) == 0
    job = launch.run(2, ["-m", "opensora", *words(place, "frames", 5, sp_size=2, **data)], place / "frames-logs")
    assert job.code == 0, job
    assert_same(place / "frames", place / "alone", 5)
    assert "step 5/5" in job.terminal and "step 5/5" in job.logs[1]


def test_four_processes_then_two_then_one(place: Path) -> None:
    """Frames, samples and the optimizer's states shared by four; the run goes on with samples and states shared by two, then alone."""
    # The latents were made up, and by no autoencoder: the model's own is not asked.
    data = {
        "ae_path": place / "model",
        "vae_latent_folder": place / "latents",
        "validation_latent_folder": place / "latents",
        "train_text_encoder": True,
    }
    assert main(words(place, "one", 10, batch_size=4, **data)) == 0
    shared = {"parallel_mode": "optim", "gradient_accumulation_steps": 2, "batch_size": 1, **data}
    job = launch.run(4, ["-m", "opensora", *words(place, "fewer", 4, sp_size=2, **shared)], place / "four-logs")
    assert job.code == 0, job
    folder = place / "fewer" / "checkpoints" / "step-00000004"
    sizes = [sum(array.nbytes for array in load_file(path).values()) for path in sorted(folder.glob("optimizer-*-of-4.safetensors"))]
    whole = load_file(place / "one" / "checkpoints" / "step-00000010" / "optimizer-0-of-1.safetensors")
    assert len(sizes) == 4 and max(sizes) <= sum(array.nbytes for array in whole.values()) / 4 + 64
    job = launch.run(2, ["-m", "opensora", *words(place, "fewer", 7, **shared)], place / "two-logs")
    assert job.code == 0, job
    assert main(words(place, "fewer", 10, batch_size=4, **data)) == 0
    assert_same(place / "fewer", place / "one", 10)

    assert main(["combine", f"--src={folder}", f"--dest={place}/whole"]) == 0
    assert (
        main(["generate", "rain", f"--model_path={place}/model", f"--pretrained_ckpt={place}/whole", f"--save_img_path={place}/out"]) == 0
    )
    assert list((place / "out").glob("*.mp4"))
