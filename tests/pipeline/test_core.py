"""Pipeline: masks, guidance, seeds, and parts that come and go."""

import logging
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest

from opensora import Pipeline
from opensora.media.reader import read_video


@pytest.fixture
def pipe(session_model: Path) -> Pipeline:
    return Pipeline.from_pretrained(session_model)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def texts(lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    mask = (np.arange(12)[None] < np.array(lengths)[:, None]).astype(np.float32)
    return noise(len(lengths), 12, 8), mask


def run(pipe: Pipeline, *inputs: Any, **options: Any) -> np.ndarray:
    return np.asarray(pipe.denoise(*inputs, steps=2, **{"sampler": "DDIM", **options}).asnumpy())


def test_a_prompt_becomes_a_video(pipe: Pipeline, tmp_path: Path) -> None:
    video = pipe("A cat", seed=3, fps=8)
    assert video.frames.shape == (5, 32, 32, 3) and video.frames.dtype == np.uint8 and video.fps == 8
    assert (
        video.metadata["seed"] == 3
        and video.metadata["sample_method"] == "DPM++2M"
        and video.metadata["prompt"] == "A cat"
    )
    video.save(tmp_path / "new" / "cat.mp4")
    assert read_video(tmp_path / "new" / "cat.mp4").shape == video.frames.shape
    np.testing.assert_array_equal(video.frames, pipe("a cat", seed=3).frames)
    assert not np.array_equal(video.frames, pipe("a cat", seed=4).frames)
    assert not np.array_equal(video.frames, pipe("an elephant", seed=3).frames)
    assert not np.array_equal(video.frames, pipe("a cat", seed=3, negative_prompt="an elephant").frames)


def test_frames_that_were_asked_for(pipe: Pipeline) -> None:
    assert pipe("a cat", num_frames=4, steps=1).frames.shape == (4, 32, 32, 3)
    assert pipe("a cat", num_frames=1, steps=1).frames.shape == (1, 32, 32, 3)
    with pytest.raises(ValueError, match="height 40 is not a multiple of 16"):
        pipe("a cat", height=40)


def test_padding_is_not_seen(pipe: Pipeline) -> None:
    embeds, mask = texts([4, 7])
    negative, negative_mask = texts([2])
    latents = noise(2, 4, 2, 4, 4)
    expected = run(pipe, embeds, mask, negative, negative_mask, latents)
    changed = embeds + 5 * (1 - mask[:, :, None])
    other = negative - 3 * (1 - negative_mask[:, :, None])
    np.testing.assert_allclose(run(pipe, changed, mask, other, negative_mask, latents), expected, atol=1e-6)
    assert np.abs(run(pipe, changed, None, negative, negative_mask, latents) - expected).max() > 1e-4
    assert np.abs(run(pipe, embeds, mask, other, None, latents) - expected).max() > 1e-4


def test_upstream_cuts_both_texts_to_the_prompt(pipe: Pipeline) -> None:
    embeds, mask = texts([4])
    negative, negative_mask = texts([9])
    latents = noise(1, 4, 2, 4, 4)
    cut = run(pipe, embeds[:, :4], None, negative[:, :4], None, latents, upstream=True)
    np.testing.assert_array_equal(
        run(pipe, embeds, mask, negative, negative_mask, latents, upstream=True), cut
    )
    ours = run(pipe, embeds, mask, negative, negative_mask, latents)
    assert np.abs(ours - cut).max() > 1e-4


def test_the_batch_does_not_change_a_video(pipe: Pipeline) -> None:
    embeds, mask = texts([4, 7, 12])
    negative, negative_mask = texts([2])
    latents = noise(3, 4, 2, 4, 4)
    together = run(pipe, embeds, mask, negative, negative_mask, latents)
    for i in range(3):
        row = slice(i, i + 1)
        np.testing.assert_array_equal(
            run(pipe, embeds[row], mask[row], negative, negative_mask, latents[row]), together[row]
        )
    np.testing.assert_array_equal(
        pipe.decode(together).asnumpy()[1:2], pipe.decode(ms.Tensor(together[1:2])).asnumpy()
    )


def test_guidance(pipe: Pipeline) -> None:
    embeds, _ = texts([4])
    latents = noise(1, 4, 2, 4, 4)
    unguided = run(pipe, embeds, None, None, None, latents, guidance_scale=1.0)
    np.testing.assert_array_equal(
        run(pipe, embeds, None, 2 * embeds, None, latents, guidance_scale=1.0), unguided
    )
    same = run(pipe, embeds, None, embeds, None, latents, guidance_scale=7.5)
    np.testing.assert_allclose(same, unguided, atol=1e-4)
    with pytest.raises(ValueError, match="needs negative_embeds"):
        run(pipe, embeds, None, None, None, latents)
    with pytest.raises(ValueError, match="pad them to one length"):
        run(pipe, embeds, None, embeds[:, :3], None, latents)


def test_without_joining_frames(pipe: Pipeline) -> None:
    embeds, _ = texts([4])
    latents = noise(1, 4, 2, 4, 4)
    apart = run(pipe, embeds, None, embeds, None, latents, temporal=False)
    changed = latents.copy()
    changed[:, :, 1] += 1
    np.testing.assert_allclose(
        run(pipe, embeds, None, embeds, None, changed, temporal=False)[:, :, 0], apart[:, :, 0], atol=1e-6
    )
    assert (
        np.abs(
            run(pipe, embeds, None, embeds, None, changed)[:, :, 0]
            - run(pipe, embeds, None, embeds, None, latents)[:, :, 0]
        ).max()
        > 1e-5
    )


def test_samplers_that_add_noise_repeat(pipe: Pipeline) -> None:
    embeds, _ = texts([4])
    latents = noise(1, 4, 2, 4, 4)
    inputs = (embeds, None, embeds, None, latents)
    first = run(pipe, *inputs, sampler="DDPM")
    np.testing.assert_array_equal(run(pipe, *inputs, sampler="DDPM"), first)
    assert not np.array_equal(
        run(pipe, *inputs, sampler="DDPM", generators=[np.random.default_rng(9)]), first
    )


def test_text_keys_and_values_are_computed_once(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    transformer, calls = pipe.transformer.get(), []
    original = transformer.text_keys_values
    monkeypatch.setattr(
        transformer, "text_keys_values", lambda text: calls.append(text.shape) or original(text)
    )
    embeds, mask = texts([4])
    run(pipe, embeds, mask, embeds, mask, noise(1, 4, 2, 4, 4), sampler="PNDM")
    assert calls == [(2, 12, 8)]


def test_parts_leave_when_memory_is_short(session_model: Path, pipe: Pipeline) -> None:
    small = Pipeline.from_pretrained(session_model, memory=0)
    assert pipe.resident and not small.resident
    np.testing.assert_array_equal(small("a cat", steps=1).frames, pipe("a cat", steps=1).frames)
    assert [part._value is None for part in (small.text, small.transformer, small.vae)] == [True] * 3
    assert [part._value is None for part in (pipe.text, pipe.transformer, pipe.vae)] == [False] * 3


def test_compiling_is_said_once(pipe: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "opensora"):
        pipe("a cat", steps=1)
        pipe("a dog", steps=1)
    said = [record.message for record in caplog.records if record.message.startswith("compiling")]
    assert said == ["compiling the text encoder", "compiling the transformer", "compiling the decoder"]


def test_weights_in_place_of_the_folder_s(session_model: Path, pipe: Pipeline, tmp_path: Path) -> None:
    from tests.small_model import random_latte

    random_latte(np.random.default_rng(5)).save_pretrained(tmp_path / "other")
    other = Pipeline.from_pretrained(
        session_model, pretrained_ckpt=tmp_path / "other" / "diffusion_pytorch_model.safetensors"
    )
    assert not np.array_equal(other("a cat", steps=1).frames, pipe("a cat", steps=1).frames)
