"""The training of a transformer on latents, shared by models of texts and of classes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from opensora.data.loader import Loader
from opensora.diffusion import GaussianDiffusion
from opensora.models import Latte, LatteT2V
from opensora.models.geometry import FLOAT
from opensora.nn import Tensor
from opensora.parallel.mesh import Mesh
from opensora.parallel.zero import parameter_sharding
from opensora.runtime import mindspore
from opensora.train.batches import BatchDrawer, HostBatch, sampling_of, split_batch
from opensora.train.checkpoint import ONE_SHARD, check_same_shapes
from opensora.train.denoiser_options import DenoiserOptions
from opensora.train.ema import EMA
from opensora.train.encoding import BatchEncoder, SharedEncoder
from opensora.train.loss import Batch, gather_terms, mean_terms
from opensora.train.monitor import Stopwatch
from opensora.train.muon import make_optimizer
from opensora.train.precision import LossScaler, compute_weights, weight_dtype
from opensora.train.summary import TaskSummary
from opensora.train.validation import HeldOutLoss
from opensora.weights import Arrays

ms = mindspore()

M = TypeVar("M", Latte, LatteT2V)
Options = TypeVar("Options", bound=DenoiserOptions)
MODEL, AVERAGE = "model", "ema"
"""Files of a checkpoint: the weights, and their moving average."""


class DenoiserTask(ABC, Generic[M, Options]):
    """Trains a transformer. Everything random in step n depends on the seed and n only.

    Processes of the mesh each have all weights, and those of a team share the frames of their samples.
    """

    model: M

    def __init__(
        self,
        model: M,
        encoder: BatchEncoder,
        data: Loader,
        held_out: Loader | None,
        options: Options,
        mesh: Mesh | None = None,
        beside: Mapping[str, Tensor] | None = None,
    ) -> None:
        """held_out: samples of the validation loss. mesh: the processes that train together, by default this
        one alone. beside: weights of other networks that are trained with the model's, under their own names.
        """
        self.model, self.mesh, self.encoder = model, mesh or Mesh(), encoder
        self.options = options
        self.batches = BatchDrawer(data, model.config.in_channels, options.seed, sampling_of(options))
        self.shared_encoder = SharedEncoder(
            encoder,
            self.mesh.sequence,
            self.batch,
            options.gradient_accumulation_steps,
            options.max_train_steps,
        )
        sharding = parameter_sharding(self.mesh, options.parallel_mode)
        self.dtype = weight_dtype(options, model.engine)
        # With sharded masters in the optimizer, no process needs all weights in float32.
        self._rounds = sharding.ranks > 1 and self.dtype != ms.float32
        self.optimizer = make_optimizer(
            options, options.max_train_steps, sharding, self._rounds, model.engine
        )
        self.scaler = LossScaler(options)
        self.weights = {**model.weights, **(beside or {})}
        self.ema = EMA(self.weights, options.ema_decay, sharding)
        self._set_weights(self.weights)
        self._paths: dict[int, list[str]] = {}
        self.held_out_loss = None
        if held_out is not None:
            drawer = BatchDrawer(held_out, model.config.in_channels, options.seed)
            samples, size = options.num_validation_samples, options.batch_size
            self.held_out_loss = HeldOutLoss(drawer, self.held_out_error, samples, size, self.mesh)

    @property
    def config(self) -> dict[str, Any]:
        """The content of the transformer's config.json."""
        return self.model.config.to_dict()

    @abstractmethod
    def sample_bytes(self) -> int:
        """Bytes of the activations of a step with one sample."""

    @abstractmethod
    def gradients(self, latents: np.ndarray, part: HostBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(loss terms (B,), gradients by weight name) of one part, scaled for the mean over all parts."""

    @abstractmethod
    def flops(self, batch: list[HostBatch]) -> float:
        """Operations of the transformer in a step, on the process that has most frames."""

    @abstractmethod
    def held_out_error(self, batch: HostBatch, step: int) -> float:
        """The mean squared error of the noise that the model predicts; of the part in this process's frames.

        step: of the posterior's noise.
        """

    @abstractmethod
    def write_samples(self, step: int, folder: Path) -> None:
        """Write what a validation shows of the model as it is."""

    def batch_inputs(self, latents: np.ndarray, part: HostBatch) -> Batch:
        """Latents with their noise and timesteps, a mask if it hides something, and weights of the losses."""
        inputs = Batch(latents=latents, noise=part["noise"], timestep=part["timestep"])
        if self.options.snr_gamma is not None:
            inputs["weight"] = GaussianDiffusion().snr_weight(part["timestep"], self.options.snr_gamma)
        if not part["latent_mask"].all():
            inputs["latent_mask"] = part["latent_mask"]
        return inputs

    def summary(self) -> TaskSummary:
        activations = self.options.batch_size * self.sample_bytes()
        parameters = sum(value.size for value in self.weights.values())
        moments = self.optimizer.num_moments(self.weights)
        own = (
            0 if self.optimizer.step else moments // self.optimizer.sharding.ranks
        )  # else they are there already
        return TaskSummary(
            parameters=parameters,
            samples=len(self.batches.data),
            memory=FLOAT * (parameters + own) + activations // self.mesh.sequence.size,
            checkpoint=FLOAT * (2 * parameters + moments),
        )

    def batch(self, step: int) -> list[HostBatch]:
        """The batch of a step, in parts for gradient accumulation.

        Processes of a team get the same batch; the teams divide what one process would get.
        """
        size, (team, teams) = self.options.samples_per_step, self.mesh.data
        first = ((step - 1) * teams + team) * size
        whole, self._paths[step] = self.batches.draw(range(first, first + size), step, (team, teams))
        return split_batch(whole, self.options.gradient_accumulation_steps)

    def samples(self, step: int) -> list[str]:
        return self._paths[step]

    def step(self, step: int, batch: list[HostBatch]) -> dict[str, float]:
        """Encode what is not cached, forward, backward, update, average."""
        watch = Stopwatch()
        total: dict[str, Tensor] = {}
        losses: dict[str, list[np.ndarray]] = {}
        for number, part in enumerate(batch):
            with watch.part("vae"):
                latents = self.shared_encoder.latents(part, step, number)
            with watch.part("model"):
                terms, gradients = self.gradients(latents, part)
                for name, value in terms.items():
                    losses.setdefault(name, []).append(value.asnumpy())
                for name, gradient in gradients.items():
                    total[name] = total[name] + gradient if name in total else gradient.astype(ms.float32)
        with watch.part("optimizer"):
            norm, rate = self._update(total)
        self._paths.pop(step - 1, None)
        terms = {name: np.concatenate(values) for name, values in losses.items()}
        timestep = np.concatenate([part["timestep"] for part in batch])
        return {
            **mean_terms(*gather_terms(self.mesh, terms, timestep)),
            "grad_norm": norm,
            "learning_rate": rate,
            "flops": self.flops(batch),
            **watch.read(),
        }

    def _update(self, gradients: dict[str, Tensor]) -> tuple[float, float]:
        """Update weights and average. Returns (global norm before clipping, learning rate)."""
        norm, rate = self.optimizer.update(self.weights, gradients, self.scaler.scale)
        finite = math.isfinite(norm)
        if finite:
            self._set_weights(self.weights)
            self.ema.update(self.weights, self.optimizer.step)
            if self._rounds:
                self.weights.update(self.model.weights)
        self.scaler.update(finite)
        return norm, rate

    def _set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Compute with these float32 weights; the transformer casts them to its number format."""
        self.model.weights = compute_weights(weights, self.dtype, self.options.level)

    def validate(self, step: int, folder: Path) -> dict[str, float]:
        """The loss of the moving average on held-out samples, and videos of it."""
        self._set_weights(self.ema.weights)
        metrics = {} if self.held_out_loss is None else {"validation_mse": self.held_out_loss()}
        self.write_samples(step, folder)
        self._set_weights(self.weights)
        return metrics

    def to_files(self, arrays: Arrays, kind: str) -> dict[str, Arrays]:
        """Weights, or their average, by the files that hold them. kind: MODEL or AVERAGE."""
        return {kind: arrays}

    def from_files(self, files: Mapping[str, Arrays], kind: str) -> dict[str, Tensor]:
        """The inverse of `to_files`."""
        return {name: ms.Tensor(value) for name, value in files[kind].items()}

    def state_files(self) -> Mapping[str, Arrays]:
        weights = {name: value.asnumpy() for name, value in self.optimizer.exact(self.weights).items()}
        files = {**self.to_files(weights, MODEL), **self.to_files(self.ema.arrays(), AVERAGE)}
        if self.optimizer.sharding.ranks == 1:
            files[ONE_SHARD] = self.optimizer.state_arrays()
        return {**files, "loss_scale": self.scaler.state_arrays()}

    def write_shard(self, folder: Path) -> None:
        if self.optimizer.sharding.ranks > 1:
            self.optimizer.write_shard(folder)

    def load_state_files(self, files: Mapping[str, Arrays]) -> None:
        weights, average = (self.from_files(files, kind) for kind in (MODEL, AVERAGE))
        check_same_shapes(self.weights, weights)
        check_same_shapes(self.weights, average)
        self.weights = weights
        self.ema.load(average)
        self._set_weights(self.weights)
        self.optimizer.load_state_arrays(files[ONE_SHARD])
        self.scaler.load_state_arrays(files["loss_scale"])
