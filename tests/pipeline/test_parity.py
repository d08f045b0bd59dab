"""The reference pipeline's four runs: latents after every step, and the pixels."""

from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest

from opensora import Pipeline
from opensora.weights import save_weights
from tests import reference

SAMPLERS = {"PNDMScheduler": "PNDM", "DDIMScheduler": "DDIM", "EulerDiscreteScheduler": "EulerDiscrete"}


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder = tmp_path_factory.mktemp("reference")
    latte = {**reference.load("latte/weights"), **reference.load("pipeline/weights_override")}
    save_weights(folder / "17x64x64", reference.read_json("latte/config"), latte)
    save_weights(folder / "vae", reference.read_json("vae/config"), reference.load("vae/weights"))
    return Pipeline.from_pretrained(model_path=folder, version="17x64x64", text_encoder=None)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("case", ["pndm", "image", "ddim", "nocfg"])
def test_reference_run(pipe: Pipeline, case: str) -> None:
    settings: dict[str, Any] = reference.read_json("pipeline/sampling")[case]
    tensors = {name: ms.Tensor(value) for name, value in reference.load("pipeline/sampling").items()}
    steps: list[np.ndarray] = []
    latents = pipe.denoise(
        tensors["prompt_embeds"],
        None,
        tensors["negative_prompt_embeds"],
        None,
        tensors[f"{case}.latents_init"],
        sampler=SAMPLERS[settings["scheduler"]],
        steps=settings["num_inference_steps"],
        guidance_scale=settings["guidance_scale"],
        temporal=settings["enable_temporal_attentions"],
        upstream=True,
        after_step=steps.append,
    )
    expected = tensors[f"{case}.latents_steps"].asnumpy()
    assert len(steps) == settings["model_calls"]
    assert relative(steps[0], expected[0]) < 2e-5
    assert relative(latents.asnumpy(), tensors[f"{case}.latents_final"].asnumpy()) < 5e-5

    frames = pipe.decode(latents).asnumpy()
    assert frames.dtype == np.uint8
    difference = np.abs(frames.astype(int) - tensors[f"{case}.video_uint8"].asnumpy())
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def test_a_pipeline_of_embeddings_names_what_it_lacks(pipe: Pipeline) -> None:
    with pytest.raises(
        ValueError, match="opened without a text encoder: name the folder of T5 with text_encoder="
    ):
        pipe("a cat")


def test_damaged_weights_are_found_at_once(pipe: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "17x64x64").symlink_to(pipe.spec.paths.transformer)
    save_weights(tmp_path / "vae", reference.read_json("vae/config"), {"extra": np.ones(1, np.float32)})
    for memory in (0, None):
        with pytest.raises(ValueError, match=r"the tensors in .*vae.* are not those of the model"):
            Pipeline.from_pretrained(model_path=tmp_path, text_encoder=None, memory=memory)
