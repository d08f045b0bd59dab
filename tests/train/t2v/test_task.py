"""Batches of a text-to-video run: order, dropped captions, timesteps, and samples of the posterior."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from opensora.data.caches.latents import LatentCache
from opensora.data.loader import Loader
from opensora.data.setup import make_source
from opensora.data.text.tokenizer import Tokenizer
from opensora.models import LatteT2V, T5Encoder
from opensora.models.causal_vae.config import LATENT_SCALE
from opensora.train.denoiser_setup import with_clip_of
from opensora.train.t2v.options import TrainOptions
from opensora.train.t2v.setup import held_out_source
from opensora.train.t2v.task import T2VTask
from opensora.weights.folder import DEMO
from tests.data.material import latent_cache
from tests.small_model import LATTE, T5

CAPTIONS = [
    f"a {animal} on a {colour} background"
    for animal in ("cat", "dog face", "cow")
    for colour in ("red", "blue")
]
MEANS = np.arange(len(CAPTIONS), dtype=np.float32)


@pytest.fixture
def cache(tmp_path: Path) -> LatentCache:
    """Clip i has latents of mean i and deviation 0.1."""
    moments = np.empty((len(CAPTIONS), 8, 2, 4, 4), np.float32)
    moments[:, :4] = MEANS[:, None, None, None, None]
    moments[:, 4:] = 2 * np.log(0.1)
    return latent_cache(tmp_path / "latents", CAPTIONS, moments)


def task(cache: LatentCache, **changes: object) -> T2VTask:
    rng = np.random.default_rng(0)
    settings = {
        "model_path": "",
        "vae_latent_folder": str(cache.folder),
        "batch_size": 4,
        "model_max_length": LATTE.model_max_length,
        **changes,
    }
    options = TrainOptions(**settings)  # type: ignore[arg-type]
    data = Loader(make_source(options, options.seed, DEMO / "text_encoder"))
    return T2VTask(LatteT2V.initialise(LATTE, rng), T5Encoder.initialise(T5, rng), None, data, data, options)


def test_every_clip_comes_once_an_epoch_with_its_caption(cache: LatentCache) -> None:
    run = task(cache, caption_dropout=0.0)
    batches = [run.batch(step)[0] for step in (1, 2, 3)]  # two epochs of six clips
    clips = np.concatenate(
        [np.rint(batch["latents"].mean((1, 2, 3, 4)) / LATENT_SCALE).astype(int) for batch in batches]
    )
    assert sorted(clips[:6]) == sorted(clips[6:]) == list(range(6))
    ids, _ = Tokenizer.from_folder(DEMO / "text_encoder")(
        [CAPTIONS[i] for i in clips], LATTE.model_max_length
    )
    np.testing.assert_array_equal(np.concatenate([batch["input_ids"] for batch in batches])[:, 0], ids)


def test_a_batch_depends_on_seed_and_step_only(cache: LatentCache) -> None:
    first, again, other = (task(cache, seed=seed).batch(5)[0] for seed in (0, 0, 1))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["noise"], other["noise"])


def test_latents_are_drawn_anew_each_time(cache: LatentCache) -> None:
    draws = np.stack([cache.latents(3, np.random.default_rng(i)) for i in range(50)]) / LATENT_SCALE
    assert draws.mean() == pytest.approx(3.0, abs=0.01) and draws.std() == pytest.approx(0.1, rel=0.05)


def test_without_draws_a_run_trains_on_the_means(cache: LatentCache) -> None:
    drawn, means = (
        task(cache, caption_dropout=0.0, sample_posterior=drawn).batch(1)[0]["latents"]
        for drawn in (True, False)
    )
    assert means.shape == drawn.shape and drawn.std((1, 2, 3, 4)).min() > 0.05 * LATENT_SCALE
    expected = np.rint(drawn.mean((1, 2, 3, 4), keepdims=True) / LATENT_SCALE) * LATENT_SCALE
    np.testing.assert_allclose(means, np.broadcast_to(expected, means.shape), rtol=1e-6)


def test_captions_are_left_out_at_the_given_rate(cache: LatentCache) -> None:
    run = task(cache, caption_dropout=0.25, batch_size=50)
    empty = np.concatenate(
        [run.batch(step)[0]["text_mask"].sum((1, 2)) == 1 for step in range(1, 41)]
    )  # the end token alone
    assert empty.mean() == pytest.approx(0.25, abs=0.04)


def test_timesteps_are_spread_over_a_batch_and_uniform_over_batches(cache: LatentCache) -> None:
    run = task(cache, batch_size=10)
    steps = np.stack([run.batch(step)[0]["timestep"] for step in range(1, 201)])  # (200, 10)
    assert steps.min() >= 0 and steps.max() <= 999
    np.testing.assert_array_equal(np.sort(steps // 100, axis=1), np.tile(np.arange(10), (200, 1)))
    assert steps[:, 0].mean() == pytest.approx(499.5, abs=60)


@pytest.mark.usefixtures("operator_mode")
def test_accumulated_batches_are_one_larger_batch(cache: LatentCache) -> None:
    """The same gradients, norms and new weights, and a loss by quarter of the timesteps."""
    results = []
    for size, parts in ((4, 1), (2, 2)):
        run = task(
            cache,
            batch_size=size,
            gradient_accumulation_steps=parts,
            lr_warmup_steps=0,
            train_text_encoder=True,
        )
        terms = run.step(1, run.batch(1))
        results.append((terms, {name: value.asnumpy() for name, value in run.weights.items()}))
    (terms, weights), (same, accumulated) = results
    for name in terms:
        if not name.startswith("seconds_"):
            assert same[name] == pytest.approx(terms[name], rel=1e-5), name
    assert {"mse_q1", "mse_q2", "mse_q3", "mse_q4", "flops"} <= set(terms)
    for name, value in weights.items():
        np.testing.assert_allclose(accumulated[name], value, rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.usefixtures("operator_mode")
def test_a_sample_that_is_not_a_number_moves_nothing(
    cache: LatentCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = task(cache, init_loss_scale=1024.0)
    batch = run.batch(1)
    batch[0]["latents"][2, 0, 0, 0, 0] = np.nan
    before, average = dict(run.weights), run.ema.arrays()
    terms = run.step(1, batch)
    assert not np.isfinite(terms["loss"]) and not np.isfinite(terms["grad_norm"])
    assert run.weights == before and run.optimizer.step == 0 and run.scaler.scale == 512.0
    for name, value in run.ema.arrays().items():
        np.testing.assert_array_equal(value, average[name])
    assert len(run.samples(1)) == 4


def test_a_joint_training_validates_on_videos(cache: LatentCache) -> None:
    options = TrainOptions(
        model_path="",
        vae_latent_folder=str(cache.folder),
        image_latent_folder="pictures",
        use_image_num=4,
        validation_latent_folder=str(cache.folder),
        model_max_length=10,
    )
    spec = SimpleNamespace(
        paths=SimpleNamespace(vae=Path("nowhere"), text_encoder=DEMO / "text_encoder"),
        strides=make_source(task(cache).options, 0, DEMO / "text_encoder").strides,
    )
    source = held_out_source(options, spec)  # type: ignore[arg-type]
    assert source.images is None and len(source) == len(cache)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"vae_latent_folder": "l", "image_latent_folder": "i"}, "image_latent_folder has no effect"),
        (
            {"vae_latent_folder": "l", "enable_tiling": True},
            "enable_tiling has no effect: latents from a cache",
        ),
    ],
)
def test_options_without_effect_are_refused(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        TrainOptions(model_path="", **options)


def test_pictures_without_their_number_are_named(caplog: pytest.LogCaptureFixture) -> None:
    TrainOptions(model_path="", video_data="v.txt", image_data="i.txt")
    assert "image_data is not read: give the number of pictures" in caplog.text
    caplog.clear()
    TrainOptions(model_path="", video_data="v.txt", image_data="i.txt", use_image_num=2)
    assert not caplog.text


@pytest.mark.parametrize(
    "given", [{"num_frames": 9}, {"max_image_size": 64}, {"enable_flip": True}, {"sample_rate": 2}]
)
def test_a_cache_is_recorded_as_it_was_cut_and_other_options_are_refused(
    cache: LatentCache, given: dict[str, Any]
) -> None:
    (name,) = given
    options = TrainOptions(model_path="", vae_latent_folder=str(cache.folder), model_max_length=10)
    source = make_source(options, 0, DEMO / "text_encoder")
    assert getattr(with_clip_of(options, source), name) == getattr(cache.clip, name)
    with pytest.raises(ValueError, match=f"{name} {given[name]} has no effect, because the clips of"):
        with_clip_of(replace(options, **given), source)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"seed": -1}, "seed -1 is too small"),
        ({"max_train_steps": 10**18}, "max_train_steps 10{18} is too large"),
        ({"batch_size": 10**9}, "batch_size 10{9} is too large"),
        ({"dataloader_prefetch_size": 10**9}, "dataloader_prefetch_size 10{9} is too large"),
        ({"dataloader_num_workers": 10**9}, "dataloader_num_workers 10{9} is too large"),
        ({"model_max_length": 10**9}, "model_max_length 10{9} is out of range"),
        ({"betas": (1.0, 1.0)}, "betas 1 1 are out of range"),
        ({"betas": (-0.1, 0.9)}, "betas -0.1 0.9 are out of range"),
    ],
)
def test_values_that_no_machine_takes_are_refused(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        TrainOptions(model_path="", vae_latent_folder="l", **options)
