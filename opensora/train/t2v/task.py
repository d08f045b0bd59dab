"""The text-to-video task of the training loop: the transformer, alone or with its text encoder."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from opensora.data.loader import Loader
from opensora.diffusion import GaussianDiffusion
from opensora.models.causal_vae.model import CausalVAE
from opensora.models.geometry import FLOAT
from opensora.models.latte.cost import step_flops, training_bytes
from opensora.models.latte.model import LatteT2V
from opensora.models.t5.model import T5Encoder
from opensora.nn import Tensor
from opensora.parallel.mesh import Mesh
from opensora.parallel.sequence import expand_to_all_captions
from opensora.parallel.zero import parameter_sharding
from opensora.runtime import compute_dtype, mindspore
from opensora.train.checkpoint import ONE_SHARD, check_same_shapes
from opensora.train.ema import EMA
from opensora.train.monitor import Stopwatch
from opensora.train.muon import make_optimizer
from opensora.train.precision import LossScaler, compute_weights
from opensora.train.summary import TaskSummary
from opensora.train.t2v.batches import BatchDrawer, HostBatch, split_batch
from opensora.train.t2v.encoding import BatchEncoder, SharedEncoder
from opensora.train.t2v.options import TrainOptions
from opensora.train.t2v.step import Batch, gather_terms, mean_terms, split_frames, step_gradients
from opensora.train.t2v.validation import HeldOutLoss, Preview
from opensora.weights import Arrays
from opensora.weights.folder import find_autoencoder

ms = mindspore()

TEXT = "text_encoder."
"""Prefix of a jointly trained text encoder's weights, in one dict with the transformer's."""
FILES = (("model", "text_encoder"), ("ema", "text_encoder_ema"))
"""Files of a checkpoint for the weights and their average: the transformer's, and a trained text
encoder's."""


class T2VTask:
    """Trains a transformer. Everything random in step n depends on the seed and n only.

    text_encoder: None if samples hold embeddings. vae: None if they hold latents. held_out: samples of the
    validation loss. mesh: the processes that train together, by default this one alone; each has all weights,
    and the processes of a team share the frames of their samples. preview: called at each validation, on the
    process that writes samples.
    """

    def __init__(
        self,
        model: LatteT2V,
        text_encoder: T5Encoder | None,
        vae: CausalVAE | None,
        data: Loader,
        held_out: Loader | None,
        options: TrainOptions,
        mesh: Mesh | None = None,
        preview: Preview | None = None,
    ) -> None:
        self.model, self.text_encoder = model, text_encoder
        self.options, self.preview, self.mesh = options, preview, mesh or Mesh()
        seed, channels = options.seed, model.config.in_channels
        self.batches = BatchDrawer(data, channels, seed)
        self.encoder = BatchEncoder(vae, text_encoder, seed, options.sample_posterior)
        self.shared_encoder = SharedEncoder(
            self.encoder,
            self.mesh.sequence,
            self.batch,
            options.gradient_accumulation_steps,
            options.max_train_steps,
        )
        self.held_out_loss = None
        if held_out is not None:
            drawer = BatchDrawer(held_out, channels, seed)
            size, samples = options.batch_size, options.num_validation_samples
            self.held_out_loss = HeldOutLoss(drawer, self._encode, samples, size, self.mesh)
        sharding = parameter_sharding(self.mesh, options.parallel_mode)
        self.dtype = compute_dtype(options.number_format)
        # With sharded masters in the optimizer, no process needs all weights in float32.
        self._rounds = sharding.ranks > 1 and self.dtype != ms.float32
        self.optimizer = make_optimizer(options, options.max_train_steps, sharding, masters=self._rounds)
        self.scaler = LossScaler(options)
        self.weights = dict(model.weights)
        if options.train_text_encoder:
            assert text_encoder is not None
            self.weights.update({TEXT + name: value for name, value in text_encoder.weights.items()})
        self.ema = EMA(self.weights, options.ema_decay, sharding)
        self._set_weights(self.weights)
        self._paths: dict[int, list[str]] = {}

    @property
    def config(self) -> dict[str, Any]:
        """The content of the transformer's config.json."""
        return self.model.config.to_dict()

    def summary(self) -> TaskSummary:
        config, options = self.model.config, self.options
        parameters = sum(value.size for value in self.weights.values())
        moments = self.optimizer.num_moments(self.weights)
        own = (
            0 if self.optimizer.step else moments // self.optimizer.sharding.ranks
        )  # else they are there already
        size = (config.video_length, *config.sample_size)
        activations = options.batch_size * training_bytes(config, size, options.use_image_num)
        return TaskSummary(
            parameters=parameters,
            samples=len(self.batches.data),
            memory=FLOAT * (parameters + own) + activations // self.mesh.sequence.size,
            checkpoint=FLOAT * (2 * parameters + moments),
        )

    def next_commands(self, run: Path) -> list[str]:
        options, target = self.options, f"models/{run.name}"
        base, encoder = ["--base", options.model_path], list[str]()
        if options.version is not None:
            base += ["--version", options.version]
        if options.text_encoder_name is not None:
            encoder = ["--text_encoder_name", options.text_encoder_name]
        commands = [
            ["convert", "--src", str(run), "--target", target, *base],
            ["generate", "a prompt", "--model_path", target, *encoder],
        ]
        if options.ae_path is not None:
            autoencoder = str(find_autoencoder(options.ae_path))
            commands.insert(1, ["convert", "--src", autoencoder, "--target", target, "--overwrite"])
        return [shlex.join(["opensora", *words]) for words in commands]

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
                terms, gradients = self._gradients(latents, part)
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
            "flops": self._flops(batch),
            **watch.read(),
        }

    def _gradients(self, latents: np.ndarray, part: HostBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(loss terms (B,), gradients by weight name) of one part, scaled for the mean over all parts."""
        trains_text = self.options.train_text_encoder
        if trains_text:
            texts, output, tape = self.encoder.texts_with_tape(part)
        else:
            texts = self.encoder.texts(part)
        inputs, exchange = split_frames(self._inputs(latents, texts, part), self.mesh.sequence)
        scale = self.scaler.scale / self.options.gradient_accumulation_steps
        terms, gradients, by_text = step_gradients(
            self.model, inputs, scale, exchange, self.options.num_no_recompute
        )
        if trains_text:
            if exchange is not None:
                by_text = ms.Tensor(
                    expand_to_all_captions(by_text.asnumpy(), texts.shape[1] - 1, self.mesh.sequence)
                )
            text_gradients, _ = tape.gradients([(output, by_text.reshape(output.shape))])
            gradients.update({TEXT + name: value for name, value in text_gradients.items()})
        return terms, gradients

    def _encode(self, batch: HostBatch, step: int) -> Batch:
        return self._inputs(self.encoder.latents(batch, step), self.encoder.texts(batch), batch)

    def _inputs(self, latents: np.ndarray, texts: Tensor, part: HostBatch) -> Batch:
        """The batch that `step_gradients` takes."""
        inputs = Batch(
            latents=latents,
            noise=part["noise"],
            timestep=part["timestep"],
            text_embeds=texts,
            text_mask=ms.Tensor(part["text_mask"]),
            num_images=part["text_mask"].shape[1] - 1,
            temporal=self.batches.has_videos,
        )
        if self.options.snr_gamma is not None:
            inputs["weight"] = GaussianDiffusion().snr_weight(part["timestep"], self.options.snr_gamma)
        if not part["latent_mask"].all():
            inputs["latent_mask"] = part["latent_mask"]
        return inputs

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
        model, text = _split_text(weights)
        self.model.weights = compute_weights(model, self.dtype, self.options.level)
        if text:
            assert self.text_encoder is not None
            self.text_encoder.weights = text

    def _flops(self, batch: list[HostBatch]) -> float:
        """Operations of the transformer in a step, on the process that has most frames."""
        count, frames, height, width = batch[0]["latent_mask"].shape
        texts, length = batch[0]["text_mask"].shape[1:]  # 1 + N
        flops = step_flops(
            self.model.config,
            (frames - texts + 1, height, width),
            batch=count,
            text_length=length,
            num_images=texts - 1,
            temporal=self.batches.has_videos,
            ranks=self.mesh.sequence.size,
            num_no_recompute=self.options.num_no_recompute,
        )
        return float(len(batch) * flops)

    def validate(self, step: int, folder: Path) -> dict[str, float]:
        """The loss of the moving average on held-out samples; writes its videos of the prompts."""
        self._set_weights(self.ema.weights)
        metrics = {}
        if self.held_out_loss is not None:
            metrics["validation_mse"] = self.held_out_loss(self.model)
        if self.preview is not None:
            self.preview(self.model, self.text_encoder, folder, step)
        self._set_weights(self.weights)
        return metrics

    def state_files(self) -> Mapping[str, Arrays]:
        files: dict[str, Arrays] = {}
        weights = {name: value.asnumpy() for name, value in self.optimizer.exact(self.weights).items()}
        for names, arrays in zip(FILES, (weights, self.ema.arrays()), strict=True):
            files.update({name: part for name, part in zip(names, _split_text(arrays), strict=True) if part})
        if self.optimizer.sharding.ranks == 1:
            files[ONE_SHARD] = self.optimizer.state_arrays()
        return {**files, "loss_scale": self.scaler.state_arrays()}

    def write_shard(self, folder: Path) -> None:
        if self.optimizer.sharding.ranks > 1:
            self.optimizer.write_shard(folder)

    def load_state_files(self, files: Mapping[str, Arrays]) -> None:
        weights, average = (_join_text(files[model], files.get(text, {})) for model, text in FILES)
        check_same_shapes(self.weights, weights)
        check_same_shapes(self.weights, average)
        self.weights = weights
        self.ema.load(average)
        self._set_weights(self.weights)
        self.optimizer.load_state_arrays(files[ONE_SHARD])
        self.scaler.load_state_arrays(files["loss_scale"])


def _split_text(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(the transformer's weights, the text encoder's) under their own names."""
    model = {name: value for name, value in weights.items() if not name.startswith(TEXT)}
    return model, {name.removeprefix(TEXT): value for name, value in weights.items() if name.startswith(TEXT)}


def _join_text(model: Arrays, text: Arrays) -> dict[str, Tensor]:
    """The inverse of `_split_text`."""
    joined = {**model, **{TEXT + name: value for name, value in text.items()}}
    return {name: ms.Tensor(value) for name, value in joined.items()}
