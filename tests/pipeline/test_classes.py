"""Sampling of classes: the original's loops, guidance, and labels by name and number."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from opensora.models import CausalVAE, Latte
from opensora.models.latte_class.config import LatteClassConfig
from opensora.pipeline.classes import ClassDenoiser, ClassPipeline, ClassPreview, sample_original
from opensora.pipeline.labels import find_label, label_name
from opensora.pipeline.settings import Sampling
from tests.models.latte_class.cases import build, frames_second, tensors
from tests.small_model import VAE

NAMED = LatteClassConfig(num_classes=3, class_names=("ant", "Bee", "cow"))


class Recorded:
    """A generator that gives the noise of the reference."""

    def __init__(self, draws: np.ndarray) -> None:
        self.draws = list(draws)

    def standard_normal(self, shape: tuple[int, ...], dtype: object) -> np.ndarray:
        return self.draws.pop(0)


@pytest.mark.parametrize("method", ["ddpm", "ddim"])
def test_the_loops_of_the_original(method: str) -> None:
    """Of the reference's two halves, which differ in their noise, the one with labels."""
    found = tensors("dit")
    network = ClassDenoiser(build("dit"), found["sample.y"].tolist(), guided=True)
    draws = np.stack([frames_second(noise)[0] for noise in found["sample.ddpm.noises"]])
    latents, steps = frames_second(found["sample.z"]), []
    result = sample_original(
        network,
        4,
        method == "ddpm",
        latents,
        4.0,
        [Recorded(draws)],
        steps.append,  # type: ignore[list-item]
    )
    expected = found[f"sample.{method}.output"]
    assert np.abs(frames_second(result) - expected).max() <= 1e-5 * np.abs(expected).max()
    assert len(steps) == 4


def pipeline(config: LatteClassConfig) -> ClassPipeline:
    rng = np.random.default_rng(0)
    model = Latte.initialise(config, rng)
    weights = {
        name: rng.normal(0, 0.2, value.shape).astype(np.float32) for name, value in model.weights.items()
    }
    opened = build("dit").engine
    vae: Any = SimpleNamespace(config=VAE)
    return ClassPipeline(Latte(config, opened.weights(weights), opened), vae)


SMALL = LatteClassConfig(
    num_layers=1,
    num_attention_heads=2,
    attention_head_dim=8,
    num_classes=3,
    sample_size=(4, 4),
    video_length=2,
)


@pytest.mark.parametrize("method", ["DPM++2M", "PNDM", "ddpm", "ddim"])
def test_a_video_depends_on_its_label_and_seed_alone(method: str) -> None:
    pipe, settings = pipeline(SMALL), Sampling(5, 32, 32, 10, 3, 2.0, method, 0)
    both = pipe.sample([1, 2], settings, [4, 5])
    assert both.shape == (2, 4, 2, 4, 4)
    np.testing.assert_array_equal(pipe.sample([2], settings, [5])[0], both[1])
    assert np.abs(pipe.sample([1], settings, [5])[0] - both[1]).max() > 1e-4
    calls: list[np.ndarray] = []
    pipe.sample([0], settings, [0], calls.append)
    assert len(calls) == pipe.num_evaluations(settings)


def test_an_unconditional_model_reads_no_label_and_has_no_guidance() -> None:
    pipe = pipeline(SMALL.changed(num_classes=0))
    plain, guided = (Sampling(5, 32, 32, 10, 3, scale, "DPM++2M", 0) for scale in (1.0, 4.0))
    np.testing.assert_array_equal(pipe.sample([0], plain, [1]), pipe.sample([0], guided, [1]))


@pytest.mark.slow
@pytest.mark.usefixtures("operator_mode")
def test_a_preview_has_a_video_of_each_label_and_a_sheet(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    CausalVAE.initialise(VAE, rng).save_pretrained(tmp_path / "vae")
    config = SMALL.changed(class_names=NAMED.class_names, video_length=1)
    preview = ClassPreview(["cow", "0"], config, tmp_path / "vae")
    preview(Latte.initialise(config, rng), tmp_path / "samples", 7)
    found = sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "samples").rglob("*.png"))
    folder = "samples/step-00000007"
    assert found == [f"{folder}.png", f"{folder}/0000-cow.png", f"{folder}/0001-ant.png"]


def test_labels() -> None:
    assert [find_label(NAMED, word) for word in ("cow", "1", "Bee")] == [2, 1, 1]
    assert label_name(NAMED, 2) == "cow" and label_name(NAMED.changed(class_names=()), 2) == "class 2"
    for word, message in {
        "bee": "did you mean 'Bee'",
        "3": "a number from 0 to 2",
        "-1": "is unknown",
    }.items():
        with pytest.raises(ValueError, match=message):
            find_label(NAMED, word)
    with pytest.raises(ValueError, match="this model is unconditional"):
        find_label(SMALL.changed(num_classes=0), "1")
