"""Calls of a pipeline: lists, seeds, arrays in place of text and noise, callbacks, and what is refused."""

import inspect
import logging
import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opensora import Pipeline
from opensora.diffusion import Sampler, make_sampler
from opensora.pipeline.arguments import CallOptions

FAST = {"steps": 1, "num_frames": 5}


@pytest.fixture(scope="module")
def pipe(session_model: Path) -> Pipeline:
    return Pipeline.from_pretrained(session_model)


@pytest.fixture(scope="module")
def cat(pipe: Pipeline) -> np.ndarray:
    return pipe("a cat", seed=4, steps=2).frames


def test_a_list_gives_the_bytes_of_single_calls(pipe: Pipeline, cat: np.ndarray) -> None:
    videos = pipe(["a cat", "a dog"], negative_prompt=["", "grey"], seed=4, steps=2, batch_size=2)
    dog = pipe("a dog", negative_prompt="grey", seed=5, steps=2)
    np.testing.assert_array_equal(videos[0].frames, cat)
    np.testing.assert_array_equal(videos[1].frames, dog.frames)
    assert videos[1].metadata == dog.metadata and dog.metadata["seed"] == 5
    (only,) = pipe(["a cat"], seed=[4], steps=2)
    np.testing.assert_array_equal(only.frames, cat)


def test_videos_per_prompt_have_seeds_of_their_own(pipe: Pipeline, cat: np.ndarray) -> None:
    videos = pipe(["a dog", "a cat"], num_videos_per_prompt=2, seed=[1, 2, 9, 4], steps=2)
    assert [video.metadata["seed"] for video in videos] == [1, 2, 9, 4]
    assert [video.metadata["prompt"] for video in videos] == ["a dog", "a dog", "a cat", "a cat"]
    np.testing.assert_array_equal(videos[3].frames, cat)
    assert len(pipe("a cat", num_videos_per_prompt=2, **FAST)) == 2


def test_embeddings_and_noise_in_place_of_text_and_seeds(pipe: Pipeline, cat: np.ndarray) -> None:
    embeds, mask = pipe.encode(["a cat", ""])
    noise = np.random.default_rng(4).standard_normal(pipe.spec.latent_shape((5, 32, 32)), dtype=np.float32)
    video = pipe(
        prompt_embeds=embeds[:1],
        prompt_mask=mask[:1],
        negative_embeds=embeds[1:],
        negative_mask=mask[1:],
        latents=noise[None],
        steps=2,
    )
    np.testing.assert_array_equal(video.frames, cat)
    np.testing.assert_array_equal(pipe("a cat", latents=noise[None], seed=8, steps=2).frames, cat)
    assert set(video.metadata["inputs"]) > {"latents", "prompt_embeds", "negative_mask"}


class OwnEuler(Sampler):
    """Euler's method in a few lines, as a user would write it."""

    def __init__(self, steps: int) -> None:
        known = make_sampler("EulerDiscrete", steps)
        self.timesteps, self.init_noise_sigma = known.timesteps, known.init_noise_sigma
        self.sigmas = np.append(known.sigmas, 0)

    def scale_model_input(self, x: np.ndarray, i: int) -> np.ndarray:
        return x * float(1 / np.sqrt(self.sigmas[i] ** 2 + 1))

    def step(self, eps: np.ndarray, i: int, x: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        return x + eps * float(self.sigmas[i + 1] - self.sigmas[i])


def test_a_sampler_of_one_s_own(pipe: Pipeline) -> None:
    own = pipe(["a cat", "a dog"], sampler=OwnEuler(3))
    known = pipe(["a cat", "a dog"], sampler="EulerDiscrete", steps=3)
    for mine, theirs in zip(own, known, strict=True):
        np.testing.assert_array_equal(mine.frames, theirs.frames)
    metadata = own[0].metadata
    assert (metadata["sample_method"], metadata["num_sampling_steps"]) == ("OwnEuler", 3)
    assert metadata["inputs"]["sampler"].endswith("test_call.OwnEuler")


def test_a_callback_sees_each_step(pipe: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []

    def watch(step: int, total: int, latents: np.ndarray, preview: Any) -> None:
        seen.append((step, total, latents.shape, preview().shape if step == 4 else None))

    with caplog.at_level(logging.INFO, "opensora"):
        videos = pipe(["a cat", "a dog"], steps=2, num_frames=4, callback=watch, progress=True)
    shape = (1, 4, 2, 4, 4)
    assert seen == [
        (1, 4, shape, None),
        (2, 4, shape, None),
        (3, 4, shape, None),
        (4, 4, shape, (1, 4, 32, 32, 3)),
    ]
    assert "video 2 of 2: step 2 of 2" in caplog.text

    def scale(step: int, total: int, latents: np.ndarray, preview: Any) -> None:
        latents /= latents.max()  # for a picture of them

    np.testing.assert_array_equal(
        pipe("a dog", seed=8, steps=2, num_frames=4, callback=scale).frames, videos[1].frames
    )

    def stop(*_: Any) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        pipe("a cat", callback=stop)
    np.testing.assert_array_equal(pipe("a dog", seed=8, steps=2, num_frames=4).frames, videos[1].frames)


def test_an_object_that_lacks_a_part_is_no_sampler(pipe: Pipeline) -> None:
    class Half:
        timesteps = np.array([999.0])

        def step(self, eps: np.ndarray, i: int, x: np.ndarray, noise: Any = None) -> np.ndarray:
            return x

    with pytest.raises(TypeError, match="sampler must be a name, or an object with all that Sampler has"):
        pipe("a cat", sampler=Half())


def test_a_pipeline_stays_in_its_process(pipe: Pipeline) -> None:
    for copy in (pickle.dumps, deepcopy):
        with pytest.raises(TypeError, match="a pipeline cannot be copied or sent to another process"):
            copy(pipe)


def test_types_of_options_are_those_of_the_call() -> None:
    named = set(inspect.signature(Pipeline.__call__).parameters) - {"self", "unknown"}
    assert named == {"prompt", "num_videos_per_prompt", *CallOptions.__annotations__}


E = np.zeros((1, 12, 8), np.float32)
NAN = float("nan")
WRONG_TYPES: list[dict[str, Any]] = [
    *({"prompt": value} for value in (None, 5, b"cat", {"a": 1}, ["a", 5], {"a"}, 2.5, [["a"]], object(), E)),
    *({"negative_prompt": value} for value in (None, 5, b"", [b"x"], [None])),
    *({"seed": value} for value in ("a", 2.5, NAN, [1.5], True, ["1"], {1}, np.zeros(1), b"1")),
    *({"steps": value} for value in (2.5, "4", True, [3], NAN, np.array([3, 4]), b"3", 4.0)),
    *({"num_frames": value} for value in (16.0, "16", [16], False, 1e9)),
    *({"height": value} for value in ("32", 32.0, (32,))),
    *({"width": value} for value in ("32", 32.5, {})),
    *({"fps": value} for value in (NAN, "8", 7.5, float("inf"), [8])),
    *({"guidance_scale": value} for value in ("7", True, [7.5], 1j, b"7")),
    *({"sampler": value} for value in (5, ["DDIM"], b"DDIM", object(), Sampler, True)),
    *({"num_videos_per_prompt": value} for value in ("2", 1.0, None, True)),
    *({"batch_size": value} for value in ("2", 1.5, None)),
    *({"progress": value} for value in (1, "yes", None)),
    *({"callback": value} for value in (1, "f", [print])),
    *({"upstream": value} for value in (0, "no", None)),
    *({"memory": value} for value in ("8G", 1.5, True)),
    *({"latents": value} for value in ("noise", 5, [1.0], [[1.0]])),
    *({"prompt": None, "prompt_embeds": value} for value in ("a", 5, [E], np.array(["a"]))),
    {"prompt": None, "prompt_embeds": E, "prompt_mask": "all"},
    {"negative_embeds": 5},
    *(
        {name: 1}
        for name in ("num_inference_steps", "generator", "output_type", "num_images_per_prompt", "stepps")
    ),
]
WRONG_VALUES: list[dict[str, Any]] = [
    *({"prompt": value} for value in ([], ())),
    *({"negative_prompt": value} for value in ([], ["a", "b"])),
    *({"seed": value} for value in (-1, 2**63, [1, 2], [-1], [])),
    *({"steps": value} for value in (0, -3, 1001, 10**30)),
    *({"num_frames": value} for value in (0, -1, 10**9)),
    *({"height": value} for value in (0, -16, 17, 10**6)),
    *({"width": value} for value in (0, 40, 1_000_000)),
    *({"fps": value} for value in (0, -8, 10**6)),
    *({"guidance_scale": value} for value in (NAN, float("inf"), -1e9)),
    *({"sampler": value} for value in ("", "ddim", "DDIM ", "Karras")),
    *({"num_videos_per_prompt": value} for value in (0, -1, 10**9)),
    *({"batch_size": value} for value in (0, -1)),
    *(
        {"latents": value}
        for value in (np.zeros(3), np.zeros((1, 4, 2, 4, 5)), np.full((1, 4, 2, 4, 4), NAN))
    ),
    {"memory": -1},
    {"memory": 2**10},
    {"prompt_embeds": E},
    {"prompt_mask": np.ones((1, 12))},
    {"negative_mask": np.ones((1, 12))},
    {"negative_embeds": np.zeros((1, 11, 8))},
    {"negative_embeds": np.zeros((3, 12, 8))},
    {"prompt": None, "prompt_embeds": np.zeros((1, 12, 7))},
    {"prompt": None, "prompt_embeds": np.full((1, 12, 8), NAN)},
    {"prompt": None, "prompt_embeds": E, "prompt_mask": np.ones((1, 11))},
    {"prompt": None, "prompt_embeds": E[0]},
    {"prompt": None, "prompt_embeds": E[:, :5]},
]


def test_wrong_arguments_are_named_before_anything_is_computed(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("encode", "denoise", "decode"):
        monkeypatch.setattr(pipe, name, None)
    assert len(WRONG_TYPES) + len(WRONG_VALUES) >= 100
    for kind, cases in ((TypeError, WRONG_TYPES), (ValueError, WRONG_VALUES)):
        for case in cases:
            name = list(case)[-1]
            with pytest.raises(kind) as caught:
                pipe(**{"prompt": "a cat", **case})
            text = str(caught.value)
            named = name in text or name.removesuffix("_embeds") in text or "needed at least" in text
            assert named and "\n" not in text and len(text) < 300, (case, text)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({"num_inference_steps": 3}, "argument 'num_inference_steps' is called 'steps' here"),
        ({"output_type": "pil"}, r"\.to_pil\(\)"),
        ({"stepps": 3}, r"argument 'stepps' is unknown \(did you mean 'steps'\?\)"),
        ({"steps": "4"}, "steps must be a whole number, not str '4'"),
        ({"num_frames": 10**9}, "num_frames 1000000000 is out of range: use 1 to 16384"),
        ({"memory": 2**10}, "1 video of 5 frames, 32x32, 3 x DPM.*raise the limit with memory="),
        ({"prompt": 5}, "prompt must be a text or a list of texts, not int 5"),
    ],
)
def test_messages_name_the_remedy(pipe: Pipeline, case: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        pipe(**{"prompt": "a cat", **case})
