"""The autoencoder task of the training loop: a CausalVAE, and a discriminator beside it."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from opensora.media.pixels import to_pixels
from opensora.models.causal_vae.config import LATENT_SCALE
from opensora.models.causal_vae.cost import training_bytes
from opensora.models.causal_vae.model import CausalVAE
from opensora.models.geometry import FLOAT
from opensora.nn import Tensor
from opensora.nn.flat import square_sum
from opensora.parallel.collectives import LinearMap
from opensora.parallel.mesh import Mesh
from opensora.parallel.zero import parameter_sharding
from opensora.runtime import mindspore
from opensora.train.checkpoint import ONE_SHARD, check_same_shapes
from opensora.train.ema import EMA
from opensora.train.muon import make_optimizer
from opensora.train.optim import AdamW
from opensora.train.summary import TaskSummary
from opensora.train.vae.loss import VAELoss
from opensora.train.vae.options import TrainVAEOptions
from opensora.train.vae.step import generator_step
from opensora.train.vae.validation import ReconstructionQuality
from opensora.weights import Arrays

ms = mindspore()

LOGVAR = "loss.logvar"
"""The published name of the learned log-variance."""
DISCRIMINATOR = "discriminator-"
"""Prefix of the files of the discriminator's optimizer."""


class ClipSequence(Protocol):
    """An endless, deterministic sequence of clips of one shape."""

    def clip(self, number: int) -> np.ndarray:
        """uint8 (T, H, W, 3)."""

    def name(self, number: int) -> str:
        """The clip's source, for messages."""

    @property
    def epoch(self) -> int | None:
        """Clips until files come again; None if each clip is new."""


class VAETask:
    """Trains a CausalVAE on clips. Everything random in step n depends on the seed and n only.

    From `loss.disc_start` on, a step updates the autoencoder and then the discriminator, on the same
    reconstruction. validation: held-out clips, uint8 (T, H, W, 3). mesh: the processes that train together,
    each on clips of its own, by default this one alone.
    """

    def __init__(
        self,
        vae: CausalVAE,
        clips: ClipSequence,
        validation: list[np.ndarray],
        loss: VAELoss,
        options: TrainVAEOptions,
        mesh: Mesh | None = None,
    ) -> None:
        self.vae, self.clips, self.loss, self.options = vae, clips, loss, options
        self.mesh = mesh or Mesh()
        self.quality = ReconstructionQuality(validation, self.mesh)
        sharding = parameter_sharding(self.mesh, options.parallel_mode)
        self.optimizer = make_optimizer(options, options.max_train_steps, sharding, engine=vae.engine)
        self.disc_optimizer = AdamW(options, max(1, options.max_train_steps - loss.disc_start), sharding)
        self.ema = EMA(vae.weights, options.ema_decay, sharding)
        if self.mesh.size > 1:
            self._average_over_processes()

    def _average_over_processes(self) -> None:
        """Let the adaptive weight and the discriminator's norms see the clips of all processes."""
        mean = parameter_sharding(self.mesh, "data").reduce_mean
        self.loss.all_reduce_mean = mean
        discriminator = self.loss.discriminator
        if discriminator is not None:
            discriminator.all_reduce_mean, discriminator.devices = LinearMap(mean, mean), self.mesh.size

    @property
    def config(self) -> dict[str, Any]:
        """The content of the autoencoder's config.json."""
        return asdict(self.vae.config)

    def summary(self) -> TaskSummary:
        options, networks = self.options, [(self.optimizer, self.vae.weights)]
        if self.loss.discriminator is not None:
            networks.append((self.disc_optimizer, self.loss.discriminator.weights))
        sizes = [sum(value.size for value in weights.values()) for _, weights in networks]
        moments = sum(optimizer.num_moments(weights) for optimizer, weights in networks)
        own = 0 if self.optimizer.step else moments // self.optimizer.sharding.ranks  # else they are there
        clip = options.video_num_frames, options.resolution, options.resolution
        activations = options.batch_size * training_bytes(self.vae.config, clip)
        return TaskSummary(
            parameters=sum(sizes),
            samples=self.clips.epoch,
            memory=FLOAT * (sum(sizes) + own) + activations,
            checkpoint=FLOAT * (sizes[0] + sum(sizes) + moments),  # of the autoencoder, its average too
        )

    def next_commands(self, run: Path) -> list[str]:
        options, model = self.options, f"models/{run.name}"
        if options.demo_data is not None:
            words = ["encode-latents", "--demo_data", options.demo_data, "--vae", model]
            words += ["--output_path", f"latents/{run.name}"]
        else:
            place = Path(options.video_path or Path(str(options.data_file_path)).parent)
            words = ["reconstruct", "--model_path", model]
            if place.is_file():
                words += ["--video_path", str(place), "--rec_path", f"reconstructions/{run.name}.mp4"]
            else:
                words += ["--real_video_dir", str(place)]
                words += ["--generated_video_dir", f"reconstructions/{run.name}"]
        commands = [["convert", "--src", str(run), "--target", model], words]
        return [shlex.join(["opensora", *words]) for words in commands]

    def batch(self, step: int) -> list[np.ndarray]:
        """float32 (B, 3, T, H, W) in [-1, 1], in parts for gradient accumulation."""
        pixels = to_pixels(np.stack([self.clips.clip(number) for number in self._numbers(step)]))
        return np.split(pixels, self.options.gradient_accumulation_steps)

    def samples(self, step: int) -> list[str]:
        return [self.clips.name(number) for number in self._numbers(step)]

    def _numbers(self, step: int) -> range:
        size, (process, processes) = self.options.samples_per_step, self.mesh.data
        first = ((step - 1) * processes + process) * size
        return range(first, first + size)

    def step(self, step: int, batch: list[np.ndarray]) -> dict[str, float]:
        """Forward and backward of both networks, then the updates and the average."""
        discriminator = self.loss.discriminator
        before = dict(discriminator.weights) if discriminator is not None else {}
        metrics, gradients, disc_gradients = self._gradients(step, batch)
        if _all_finite(metrics):
            metrics["grad_norm"], metrics["learning_rate"] = self._update(gradients)
        if not _all_finite(metrics):
            if discriminator is not None:
                discriminator.weights = before  # its running statistics have moved
            return metrics
        self.ema.update(self.vae.weights, self.optimizer.step)
        if discriminator is not None and disc_gradients:
            norm, _ = self.disc_optimizer.update(discriminator.weights, disc_gradients)
            metrics["disc_grad_norm"] = norm
        return metrics

    def _gradients(
        self, step: int, batch: list[np.ndarray]
    ) -> tuple[dict[str, float], dict[str, Tensor], dict[str, Tensor]]:
        """(metrics, gradients of the autoencoder, gradients of the discriminator).

        All are means over the parts of a batch. The metrics are means over all processes too; the optimizers
        average the gradients.
        """
        all_metrics, vae_gradients, disc_gradients = [], [], []
        for pixels, noise, decoder_noise in zip(batch, *self._noises(step, batch), strict=True):
            video = ms.Tensor(pixels)
            options = self.options
            terms, gradients, reconstruction = generator_step(
                self.vae,
                self.loss,
                video,
                step - 1,
                noise,
                options.freeze_encoder,
                decoder_noise,
                options.recompute,
            )
            if self.options.learn_logvar:
                gradients[LOGVAR] = ms.Tensor(np.float32(terms.by_logvar))
            error = float(np.mean(np.square((reconstruction.asnumpy() - pixels) / 2)))
            metrics = {"loss": terms.loss, **terms.log, "psnr": -10 * math.log10(error + 1e-10)}
            if self.loss.discriminator is not None and step > self.loss.disc_start:
                disc_terms = self.loss.discriminate(video, reconstruction, step - 1)
                disc_gradients.append(disc_terms.gradients)
                squares = sum(map(square_sum, disc_terms.gradients.values()))
                # The norm of this part only: finite if and only if the update will be. `step` replaces it.
                metrics |= {**disc_terms.log, "disc_grad_norm": math.sqrt(squares)}
            all_metrics.append(metrics)
            vae_gradients.append(gradients)
        all_metrics = [metrics for rank in self.mesh.world.agree(all_metrics) for metrics in rank]
        means = {
            name: sum(metrics[name] for metrics in all_metrics) / len(all_metrics) for name in all_metrics[0]
        }
        return means, _mean(vae_gradients), _mean(disc_gradients)

    def _noises(self, step: int, batch: list[np.ndarray]) -> tuple[list[Tensor], list[Tensor | None]]:
        """(noise for the posterior, noise before decoding or None) per part, of the latents' shape."""
        rng = np.random.default_rng([self.options.seed, step])
        (process, processes), size = self.mesh.data, sum(map(len, batch))
        shape = self.vae.latent_shape((size * processes, *batch[0].shape[1:]))

        def parts(noise: np.ndarray) -> list[Tensor]:
            own = noise[process * size : (process + 1) * size]
            return [ms.Tensor(part) for part in np.split(own, len(batch))]

        posterior = parts(rng.standard_normal(shape, np.float32))
        if not self.options.latent_noise:
            return posterior, [None] * len(batch)
        deviation = self.options.latent_noise / LATENT_SCALE * rng.random((shape[0], 1, 1, 1, 1), np.float32)
        return posterior, parts(deviation * rng.standard_normal(shape, np.float32))

    def _update(self, gradients: dict[str, Tensor]) -> tuple[float, float]:
        """Update the autoencoder. Returns (global norm before clipping, learning rate)."""
        weights = dict(self.vae.weights)
        if self.options.learn_logvar:
            weights[LOGVAR] = ms.Tensor(np.float32(self.loss.logvar))
        result = self.optimizer.update(weights, gradients)
        if self.options.learn_logvar:
            self.loss.logvar = float(weights.pop(LOGVAR).asnumpy())
        self.vae.weights = weights
        return result

    def validate(self, step: int, folder: Path) -> dict[str, float]:
        """PSNR of the moving average on the validation clips."""
        return self.quality(CausalVAE(self.vae.config, self.ema.weights, self.vae.engine), step, folder)

    def state_files(self) -> Mapping[str, Arrays]:
        files: dict[str, Arrays] = {"model": _arrays(self.vae.weights), "ema": self.ema.arrays()}
        if self.optimizer.sharding.ranks == 1:
            files[ONE_SHARD] = self.optimizer.state_arrays()
        if self.options.learn_logvar:
            files["loss"] = {LOGVAR: np.array(self.loss.logvar, np.float32)}
        if self.loss.discriminator is not None:
            files["discriminator"] = _arrays(self.loss.discriminator.weights)
            if self.disc_optimizer.sharding.ranks == 1:
                files[DISCRIMINATOR + ONE_SHARD] = self.disc_optimizer.state_arrays()
        return files

    def write_shard(self, folder: Path) -> None:
        if self.optimizer.sharding.ranks > 1:
            self.optimizer.write_shard(folder)
            if self.loss.discriminator is not None:
                self.disc_optimizer.write_shard(folder, DISCRIMINATOR)

    def load_state_files(self, files: Mapping[str, Arrays]) -> None:
        """A run that was saved without a discriminator continues with a new one, if it has one now."""
        check_same_shapes(self.vae.weights, files["model"])
        check_same_shapes(self.vae.weights, files["ema"])
        self.vae.weights = _tensors(files["model"])
        self.ema.load(_tensors(files["ema"]))
        self.optimizer.load_state_arrays(files[ONE_SHARD])
        if "loss" in files:
            self.loss.logvar = float(files["loss"][LOGVAR])
        if self.loss.discriminator is not None and "discriminator" in files:
            check_same_shapes(self.loss.discriminator.weights, files["discriminator"])
            self.loss.discriminator.weights = _tensors(files["discriminator"])
            self.disc_optimizer.load_state_arrays(files[DISCRIMINATOR + ONE_SHARD])


def _all_finite(metrics: Mapping[str, float]) -> bool:
    return all(map(math.isfinite, metrics.values()))


def _mean(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of dicts of gradients with the same names; an empty dict for none."""
    if len(parts) < 2:
        return dict(*parts)
    return {
        name: sum(part[name] for part in parts[1:]) * (1 / len(parts)) + parts[0][name] * (1 / len(parts))
        for name in parts[0]
    }


def _arrays(weights: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: value.asnumpy() for name, value in weights.items()}


def _tensors(arrays: Arrays) -> dict[str, Tensor]:
    return {name: ms.Tensor(value) for name, value in arrays.items()}
