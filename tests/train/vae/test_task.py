"""The autoencoder's training with a discriminator: it learns, it continues bit for bit from any step, and a
broken step changes nothing."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest

from opensora.cli import main
from opensora.models.causal_vae.model import CausalVAE, CausalVAEConfig
from opensora.models.discriminator import Discriminator
from opensora.models.lpips import LPIPS
from opensora.train.checkpoint import load_checkpoint, save_checkpoint
from opensora.train.loop import train
from opensora.train.vae.loss import VAELoss
from opensora.train.vae.options import TrainVAEOptions
from opensora.train.vae.setup import make_loss
from opensora.train.vae.task import VAETask
from opensora.weights import WeightsError, save_config, save_tensors
from tests.train.vae.test_loss import small_lpips

# Two levels, one of which halves space and time: few blocks to compile.
CONFIG = CausalVAEConfig(
    hidden_size=8,
    hidden_size_mult=(1, 1),
    num_res_blocks=1,
    norm_num_groups=4,
    encoder_resnet_blocks=("ResnetBlock2D",) * 2,
    encoder_spatial_downsample=("Downsample", ""),
    encoder_temporal_downsample=("TimeDownsampleRes2x", ""),
    decoder_resnet_blocks=("ResnetBlock2D",) * 2,
    decoder_spatial_upsample=("", "SpatialUpsample2x"),
    decoder_temporal_upsample=("", "TimeUpsampleRes2x"),
)


class MovingSquare:
    """A bright square that moves over a dark ground, from a place and in a colour that follow from the
    number: 5 frames of 16 x 16."""

    epoch = None

    def clip(self, number: int) -> np.ndarray:
        rng = np.random.default_rng([7, number])
        top, left = (int(value) for value in rng.integers(0, 6, 2))
        frames = np.full((5, 16, 16, 3), 30, np.uint8)
        for i, frame in enumerate(frames):
            frame[top : top + 8, left + i // 2 : left + i // 2 + 8] = (
                rng.integers(150, 250, 3) if not i else frames[0, top, left]
            )
        return frames

    def name(self, number: int) -> str:
        return f"square {number}"


def make_options(run: Path, steps: int, **changes: Any) -> TrainVAEOptions:
    settings: dict[str, Any] = {
        "demo_data": "unused",
        "model_config": "unused",
        "output_dir": str(run),
        "max_train_steps": steps,
        "video_num_frames": 5,
        "resolution": 16,
        "batch_size": 2,
        "learning_rate": 4e-3,
        "lr_warmup_steps": min(5, steps),
        "ema_decay": 0.9,
        "log_interval": 1,
        "learn_logvar": True,
        "use_discriminator": True,
    }
    return TrainVAEOptions(**(settings | changes))


def make_task(options: TrainVAEOptions, disc_start: int) -> VAETask:
    rng = np.random.default_rng(options.seed)
    loss = VAELoss(
        squared_weight=2.0,
        discriminator=Discriminator.initialise(3, rng, layers=1, width=8),
        disc_start=disc_start,
    )
    squares = MovingSquare()
    return VAETask(
        CausalVAE.initialise(CONFIG, rng),
        squares,
        [squares.clip(-1 + 10**6), squares.clip(10**6)],
        loss,
        options,
    )


def assert_same(
    found: Mapping[str, Mapping[str, np.ndarray]], expected: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    assert set(found) == set(expected)
    for group, arrays in expected.items():
        assert set(found[group]) == set(arrays)
        for name, value in arrays.items():
            np.testing.assert_array_equal(found[group][name], value, err_msg=f"{group}/{name}")


@pytest.mark.slow
def test_it_learns_and_continues_bit_for_bit_from_any_step(tmp_path: Path) -> None:
    options = make_options(tmp_path / "run", 80)
    task = make_task(options, disc_start=40)
    before = task.validate(0, tmp_path / "samples")["validation_psnr"]
    kept = {}
    for step in range(1, options.max_train_steps + 1):
        log = task.step(step, task.batch(step))
        assert ("g_loss" in log) == ("disc_loss" in log) == (step > 40)
        if step in (1, 39, 40, 41, 44):
            # Through the files, as a killed run finds them.
            kept[step] = save_checkpoint(tmp_path, step, task.state_files(), {}, keep=0)
        if step == 45:
            expected = task.state_files()
    assert task.validate(80, tmp_path / "samples")["validation_psnr"] - before >= 6
    assert (tmp_path / "samples" / "step-00000080.png").is_file()
    assert set(expected) == {
        "model",
        "ema",
        "optimizer-0-of-1",
        "loss",
        "discriminator",
        "discriminator-optimizer-0-of-1",
    }

    for step in (39, 40, 41, 44):
        resumed = make_task(options, disc_start=40)
        resumed.load_state_files(load_checkpoint(kept[step])[0])
        for later in range(step + 1, 46):
            resumed.step(later, resumed.batch(later))
        assert_same(resumed.state_files(), expected)


@pytest.mark.slow
def test_a_step_that_is_not_finite_changes_nothing_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = make_options(tmp_path, 2, max_skipped_steps=2)
    task = make_task(options, disc_start=0)
    assert task.loss.discriminator is not None
    task.loss.discriminator.weights["main.0.bias"] = ms.Tensor(np.full(8, np.inf, np.float32))
    before = task.state_files()
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(ValueError, match=r"step 2: .*with the samples square 2, square 3; 2 steps in a row"),
    ):
        train(task, options)
    assert "the update was skipped" in caplog.text
    after = task.state_files()
    for group in ("model", "ema", "discriminator", "loss"):
        for name, value in before[group].items():
            np.testing.assert_array_equal(after[group][name], value, err_msg=f"{group}/{name}")
    assert task.optimizer.step == task.disc_optimizer.step == 0


@pytest.mark.usefixtures("operator_mode")
def test_parts_of_a_batch_are_averaged(tmp_path: Path) -> None:
    """Without a discriminator, whose norms look at a part at a time, two parts of one clip are one of two
    clips."""
    logs = []
    for size, parts in ((2, 1), (1, 2)):
        options = make_options(tmp_path, 4, batch_size=size, gradient_accumulation_steps=parts)
        task = make_task(options, disc_start=99)
        logs.append(task.step(1, task.batch(1)))
    for name in ("loss", "rec_loss", "kl_loss", "grad_norm"):
        assert logs[0][name] == pytest.approx(logs[1][name], rel=1e-4)


@pytest.mark.slow
def test_a_frozen_encoder_stays_and_the_decoder_gets_the_same_gradients(tmp_path: Path) -> None:
    norms = []
    for freeze in (False, True):
        task = make_task(
            make_options(tmp_path, 4, freeze_encoder=freeze, kl_weight=0.0, max_grad_norm=0.0), disc_start=99
        )
        before = dict(task.vae.weights)
        norms.append(task.step(1, task.batch(1))["grad_norm"])
        moved = {
            name.split(".")[0]
            for name, value in task.vae.weights.items()
            if np.any(value.asnumpy() != before[name].asnumpy())
        }
        assert moved == (
            {"decoder", "post_quant_conv"}
            if freeze
            else {"encoder", "quant_conv", "decoder", "post_quant_conv"}
        )
    assert norms[1] < norms[0]


@pytest.mark.slow
def test_latent_noise_disturbs_what_is_decoded(tmp_path: Path) -> None:
    """Decoded are the latents and the noise; a step draws the same one each time."""
    options = make_options(tmp_path, 4, freeze_encoder=True, latent_noise=0.0)
    task = make_task(options, disc_start=99)
    video = ms.Tensor(task.batch(1)[0])
    calm, posterior, _ = task.vae.forward_with_tape(video)
    far = np.full(posterior.mean.shape, 3.0, np.float32)
    moved = task.vae.forward_with_tape(video, decoder_noise=ms.Tensor(far))[0].asnumpy()
    np.testing.assert_allclose(moved, task.vae.decode(posterior.mean + ms.Tensor(far)).asnumpy(), atol=1e-5)
    assert np.abs(moved - calm.asnumpy()).max() > 1e-3
    logs = [
        make_task(replace(options, latent_noise=noise), disc_start=99).step(1, task.batch(1))
        for noise in (0.0, 0.5, 0.5)
    ]
    assert logs[1] == logs[2] != logs[0]


@pytest.mark.slow
def test_a_run_without_a_discriminator_continues_with_one(tmp_path: Path) -> None:
    options = make_options(tmp_path, 4, learn_logvar=False)
    task = make_task(options, disc_start=1)
    task.loss.discriminator = None
    task.step(1, task.batch(1))
    files = task.state_files()
    assert set(files) == {"model", "ema", "optimizer-0-of-1"}
    resumed = make_task(options, disc_start=1)
    resumed.load_state_files(files)
    assert resumed.optimizer.step == 1
    assert "disc_loss" in resumed.step(2, resumed.batch(2))


def test_the_loss_follows_options_then_the_configuration_then_the_published_defaults(tmp_path: Path) -> None:
    config = {
        "loss_params": {"disc_start": 7, "kl_weight": 1e-3},
        "loss_type": "opensora.LPIPSWithDiscriminator",
    }
    rng = np.random.default_rng(0)
    loss = make_loss(make_options(tmp_path, 1, kl_weight=1e-5, disc_num_layers=1), config, rng)
    assert (loss.kl_weight, loss.disc_start, loss.disc_weight, loss.logvar, loss.disc_loss) == (
        1e-5,
        7,
        0.5,
        0.0,
        "hinge",
    )
    assert loss.discriminator is not None and loss.discriminator.dims == 2
    assert make_loss(make_options(tmp_path, 1, use_discriminator=False), {}, rng).discriminator is None
    three = make_loss(make_options(tmp_path, 1, disc_dims="3", disc_num_layers=1), config, rng).discriminator
    assert three is not None and three.dims == 3


def test_lpips_comes_from_one_file_or_from_two(tmp_path: Path) -> None:
    weights = small_lpips(np.random.default_rng(0))
    vgg = {
        f"features.{name.split('.', 2)[2]}": value
        for name, value in weights.items()
        if name.startswith("net")
    }
    save_tensors(tmp_path / "vgg.safetensors", vgg | {"classifier.0.weight": np.zeros((2, 2), np.float32)})
    save_tensors(
        tmp_path / "heads.safetensors",
        {name: value for name, value in weights.items() if name.startswith("lin")},
    )
    save_tensors(
        tmp_path / "vae.safetensors",
        {f"loss.perceptual_loss.{name}": value for name, value in weights.items()},
    )
    for files in (["vgg.safetensors", "heads.safetensors"], ["vae.safetensors"]):
        found = LPIPS.from_files([str(tmp_path / name) for name in files]).weights
        assert all(np.array_equal(found[name].asnumpy(), value) for name, value in weights.items()) and len(
            found
        ) == len(weights)
    with pytest.raises(WeightsError, match="does not exist"):
        LPIPS.from_files([str(tmp_path / "none.safetensors")])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--video_path=a", "--demo_data=b"], "name one source of clips"),
        ([], "name one source of clips"),
        (
            ["--video_path=a", "--scale_lr"],
            "option scale_lr True is the published version's: set --learning_rate itself",
        ),
        (
            ["--video_path=a", "--epochs=3"],
            "option --epochs is the published version's: set --max_train_steps",
        ),
        (["--video_path=a", "--max_steps=0"], "max_train_steps 0 is too small: use 1 or more"),
        (["--video_path=a", "--disc_dims=4"], "option disc_dims is '4', but it must be one of 2, 3"),
        (["--video_path=nowhere"], "folder nowhere does not exist"),
        (["--video_path=."], "has no video or picture"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_config(tmp_path, dict(vars(CONFIG)))
    assert main(["train-vae", f"--model_config={tmp_path}", *words]) == 2
    assert message in capsys.readouterr().err
