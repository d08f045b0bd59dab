"""Runs of training to compare: their commands, weights and metrics."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file


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
    """Networks and moving averages of a checkpoint. Key biases are left out: their gradients are rounding."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    groups = {
        path.stem: load_file(path)
        for path in folder.glob("*.safetensors")
        if path.stem.startswith(("model", "ema", "text"))
    }
    return {
        f"{group} {name}": value
        for group, arrays in groups.items()
        for name, value in arrays.items()
        if "to_k.bias" not in name
    }


def metrics(run: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def assert_same(
    run: Path, reference: Path, step: int, terms: tuple[str, ...] = ("loss", "validation_mse")
) -> None:
    """The same weights and losses; prints how far apart they are (`pytest -rP` shows it)."""
    expected, worst = weights(reference, step), 0.0
    for name, value in weights(run, step).items():
        distance = np.abs(value - expected[name]).max() / np.abs(expected[name]).max()
        worst = max(worst, float(distance))
        assert distance <= 1e-5, name
    print(f"{run.name}: weights within {worst:.1e} of each tensor's maximum after {step} steps")
    for term in terms:
        found, known = metrics(run, term), metrics(reference, term)
        np.testing.assert_allclose(found[-len(known) :], known, rtol=1e-4)
        if known:
            print(
                f"{run.name}: {term} within {np.max(np.abs(np.divide(found[-len(known) :], known) - 1)):.1e}"
            )
