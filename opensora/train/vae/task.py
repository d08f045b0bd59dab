"""Training of CausalVAE, and of a discriminator beside it: what one step is, and what a checkpoint holds."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from opensora.media.pixels import to_bytes, to_pixels
from opensora.media.sheets import contact_sheet
from opensora.media.writer import write_video
from opensora.models.causal_vae.config import LATENT_SCALE
from opensora.models.causal_vae.model import CausalVAE
from opensora.nn.flat import square_sum
from opensora.parallel.collectives import LinearMap
from opensora.parallel.mesh import Mesh
from opensora.parallel.zero import parameter_sharding
from opensora.runtime import mindspore
from opensora.train.checkpoint import ONE_SHARD, Arrays
from opensora.train.ema import EMA
from opensora.train.muon import make_optimizer
from opensora.train.optim import AdamW
from opensora.train.vae.loss import VAELoss, generator_step
from opensora.train.vae.options import TrainVAEOptions

__all__ = ["VAELoss", "VAETask", "generator_step"]

ms = mindspore()

LOGVAR = "loss.logvar"
"""The published name of the learned log-variance."""
ADVERSARY = "discriminator-"
"""What the names of its optimizer's files begin with."""
CLIPS_SHOWN = 6


class Clips(Protocol):
    """An endless, deterministic source of clips of one shape."""

    def clip(self, number: int) -> np.ndarray:
        """uint8 (T, H, W, 3)."""

    def name(self, number: int) -> str:
        """What the clip is made of, for messages."""


class VAETask:
    """Trains a CausalVAE on clips; everything random in step n comes from (seed, n).

    From `loss.disc_start` on, each step of the autoencoder is followed by one of the discriminator on the same reconstruction.
    """

    def __init__(
        self,
        vae: CausalVAE,
        clips: Clips,
        validation: list[np.ndarray],
        loss: VAELoss,
        options: TrainVAEOptions,
        mesh: Mesh | None = None,
    ) -> None:
        """mesh: the processes that train together, each on clips of its own, by default this one alone."""
        self.vae, self.clips, self.validation, self.loss, self.options = vae, clips, validation, loss, options
        self.mesh = mesh or Mesh()
        sharding = parameter_sharding(self.mesh, options.parallel_mode)
        self.optimizer = make_optimizer(options, options.max_train_steps, sharding)
        self.disc_optimizer = AdamW(options, max(1, options.max_train_steps - loss.disc_start), sharding)
        if self.mesh.size > 1:
            self._agree_on_the_adversary()
        self.ema = EMA(vae.weights, options.ema_decay, sharding)

    def _agree_on_the_adversary(self) -> None:
        """The adversarial term's weight and the discriminator's norms are those of the clips of all processes."""
        mean = parameter_sharding(self.mesh, "data").reduce_mean
        self.loss.all_reduce_mean = mean
        if self.loss.discriminator is not None:
            self.loss.discriminator.all_reduce_mean, self.loss.discriminator.devices = (
                LinearMap(mean, mean),
                self.mesh.size,
            )

    def batch(self, step: int) -> list[np.ndarray]:
        """float32 (B, 3, T, H, W) in [-1, 1], in the parts that go through the model together."""
        pixels = to_pixels(np.stack([self.clips.clip(number) for number in self._numbers(step)]))
        return np.split(pixels, self.options.gradient_accumulation_steps)

    def samples(self, step: int) -> list[str]:
        return [self.clips.name(number) for number in self._numbers(step)]

    def _numbers(self, step: int) -> range:
        size, (process, processes) = self.options.samples_per_step, self.mesh.data
        first = ((step - 1) * processes + process) * size
        return range(first, first + size)

    def step(self, step: int, batch: list[np.ndarray]) -> dict[str, float]:
        """Forward and backward of both networks, then clipping and Adam of each, and the autoencoder's EMA.

        Where a term or a gradient is not finite, nothing is changed.
        """
        discriminator = self.loss.discriminator
        before = dict(discriminator.weights) if discriminator is not None else {}
        log, gradients, disc_gradients = self._gradients(step, batch)
        if _all_finite(log):
            log["grad_norm"], log["learning_rate"] = self._update(gradients)
        if not _all_finite(log):
            if discriminator is not None:
                discriminator.weights = before  # the running statistics have moved
            return log
        self.ema.update(self.vae.weights, self.optimizer.step)
        if discriminator is not None and disc_gradients:
            log["disc_grad_norm"], _ = self.disc_optimizer.update(discriminator.weights, disc_gradients)
        return log

    def _gradients(
        self, step: int, batch: list[np.ndarray]
    ) -> tuple[dict[str, float], dict[str, Any], dict[str, Any]]:
        """Means over the parts of a batch: what to log, the gradients of the autoencoder and those of the discriminator.

        What to log are means over all processes as well; the optimizers see to the gradients.
        """
        logs, ours, theirs = [], [], []
        for pixels, noise, disturbance in zip(batch, *self._noises(step, batch), strict=True):
            video = ms.Tensor(pixels)
            settings = (step - 1, noise, self.options.freeze_encoder, disturbance)
            terms, gradients, reconstruction = generator_step(self.vae, self.loss, video, *settings)
            if self.options.learn_logvar:
                gradients[LOGVAR] = ms.Tensor(np.float32(terms.by_logvar))
            error = float(np.mean(np.square((reconstruction.asnumpy() - pixels) / 2)))
            log = {"loss": terms.loss, **terms.log, "psnr": -10 * math.log10(error + 1e-10)}
            if self.loss.discriminator is not None and step > self.loss.disc_start:
                other = self.loss.discriminate(video, reconstruction, step - 1)
                theirs.append(other.gradients)
                squares = sum(map(square_sum, other.gradients.values()))
                # Not yet the mean's norm, but finite only if that is.
                log |= {**other.log, "disc_grad_norm": math.sqrt(squares)}
            logs.append(log)
            ours.append(gradients)
        logs = [log for said in self.mesh.world.agree(logs) for log in said]
        means = {name: sum(log[name] for log in logs) / len(logs) for name in logs[0]}
        return means, _mean(ours), _mean(theirs)

    def _noises(self, step: int, batch: list[np.ndarray]) -> tuple[list[Any], list[Any]]:
        """For each part of a batch, of its latents' shape: noise of unit variance, and what is added to the latents, None for nothing."""
        rng = np.random.default_rng([self.options.seed, step])
        (process, processes), size = self.mesh.data, sum(map(len, batch))
        shape = self.vae.latent_shape((size * processes, *batch[0].shape[1:]))

        def parts(noise: np.ndarray) -> list[Any]:
            return [
                ms.Tensor(part) for part in np.split(noise[process * size : (process + 1) * size], len(batch))
            ]

        noises = parts(rng.standard_normal(shape, np.float32))
        if not self.options.latent_noise:
            return noises, [None] * len(batch)
        deviation = self.options.latent_noise / LATENT_SCALE * rng.random((shape[0], 1, 1, 1, 1), np.float32)
        return noises, parts(deviation * rng.standard_normal(shape, np.float32))

    def _update(self, gradients: dict[str, Any]) -> tuple[float, float]:
        weights = dict(self.vae.weights)
        if self.options.learn_logvar:
            weights[LOGVAR] = ms.Tensor(np.float32(self.loss.logvar))
        result = self.optimizer.update(weights, gradients)
        if self.options.learn_logvar:
            self.loss.logvar = float(weights.pop(LOGVAR).asnumpy())
        self.vae.weights = weights
        return result

    def validate(self, step: int, folder: Path) -> dict[str, float]:
        """PSNR of the EMA weights on the validation clips, and a sheet of the first clips above their reconstructions.

        Several processes share the clips; the sheet shows the first one's.
        """
        vae = CausalVAE(self.vae.config, self.ema.weights)
        errors, pairs = [], []
        for clip in self.validation[self.mesh.rank :: self.mesh.size]:
            video = to_pixels(clip[None])
            result = vae.decode(vae.encode(ms.Tensor(video)).mode()).asnumpy()
            errors.append(float(np.mean(np.square((np.clip(result, -1, 1) - video) / 2))))
            pairs.append((clip, to_bytes(result)[0]))
        errors = [error for said in self.mesh.world.agree(errors) for error in said]
        if not self.mesh.is_first:
            return {"validation_psnr": _psnr(errors)}
        folder.mkdir(parents=True, exist_ok=True)
        rows = [np.concatenate((clip[::4], result[::4])) for clip, result in pairs[:CLIPS_SHOWN]]
        sheet = contact_sheet(np.concatenate(rows), columns=2 * len(pairs[0][0][::4]))
        write_video(folder / f"step-{step:08d}.png", sheet[None], fps=1)
        return {"validation_psnr": _psnr(errors)}

    def groups(self) -> Mapping[str, Arrays]:
        """What a checkpoint holds; without a discriminator and a learned log-variance: model, ema and optimizer."""
        groups: dict[str, Arrays] = {
            "model": _arrays(self.vae.weights),
            "ema": self.ema.arrays(),
        }
        if self.optimizer.sharding.ranks == 1:
            groups[ONE_SHARD] = self.optimizer.state_arrays()
        if self.options.learn_logvar:
            groups["loss"] = {LOGVAR: np.array(self.loss.logvar, np.float32)}
        if self.loss.discriminator is not None:
            groups["discriminator"] = _arrays(self.loss.discriminator.weights)
            if self.disc_optimizer.sharding.ranks == 1:
                groups[ADVERSARY + ONE_SHARD] = self.disc_optimizer.state_arrays()
        return groups

    def write_shard(self, folder: Path) -> None:
        if self.optimizer.sharding.ranks > 1:
            self.optimizer.write_shard(folder)
            if self.loss.discriminator is not None:
                self.disc_optimizer.write_shard(folder, ADVERSARY)

    def load_groups(self, groups: Mapping[str, Arrays], state: Mapping[str, Any]) -> None:
        """A run that was saved without a discriminator continues with a fresh one where it is asked for."""
        self.vae.weights = _tensors(groups["model"])
        self.ema.load(_tensors(groups["ema"]))
        self.optimizer.load_state_arrays(groups[ONE_SHARD])
        if "loss" in groups:
            self.loss.logvar = float(groups["loss"][LOGVAR])
        if self.loss.discriminator is not None and "discriminator" in groups:
            self.loss.discriminator.weights = _tensors(groups["discriminator"])
            self.disc_optimizer.load_state_arrays(groups[ADVERSARY + ONE_SHARD])


def _psnr(errors: list[float]) -> float:
    return float(-10 * np.log10(np.mean(errors)))


def _all_finite(log: Mapping[str, float]) -> bool:
    return all(map(math.isfinite, log.values()))


def _mean(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of several dicts of gradients under the same names; of none, an empty dict."""
    if len(parts) < 2:
        return dict(*parts)
    return {
        name: sum(part[name] for part in parts[1:]) * (1 / len(parts)) + parts[0][name] * (1 / len(parts))
        for name in parts[0]
    }


def _arrays(weights: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: value.asnumpy() for name, value in weights.items()}


def _tensors(arrays: Arrays) -> dict[str, Any]:
    return {name: ms.Tensor(value) for name, value in arrays.items()}
