"""The class-conditional task of the training loop."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from opensora.data.loader import Loader
from opensora.diffusion import GaussianDiffusion
from opensora.engine.block import as_array
from opensora.models.causal_vae.model import CausalVAE
from opensora.models.latte_class.cost import step_flops, training_bytes
from opensora.models.latte_class.model import Latte
from opensora.models.latte_class.weights import POSITIONS, position_tables
from opensora.nn import Tensor
from opensora.parallel.mesh import Mesh
from opensora.runtime import mindspore
from opensora.train.denoiser import DenoiserTask
from opensora.train.latte_class.options import TrainClassOptions
from opensora.train.latte_class.step import step_gradients
from opensora.train.t2v.batches import BatchDrawer, HostBatch
from opensora.train.t2v.encoding import BatchEncoder
from opensora.train.t2v.step import Batch
from opensora.train.t2v.validation import HeldOutLoss
from opensora.weights import Arrays

ms = mindspore()

Preview = Callable[[Latte, Path, int], None]
"""Writes videos of a few classes with the model as it is, into a folder, after a step."""


class ClassTask(DenoiserTask[Latte]):
    """Trains a Latte.

    vae: None if samples hold latents. held_out: samples of the validation loss. preview: called at each
    validation, on the process that writes samples.
    """

    def __init__(
        self,
        model: Latte,
        vae: CausalVAE | None,
        data: Loader,
        held_out: Loader | None,
        options: TrainClassOptions,
        mesh: Mesh | None = None,
        preview: Preview | None = None,
    ) -> None:
        self.options, self.preview = options, preview
        encoder = BatchEncoder(vae, None, options.seed, options.sample_posterior)
        super().__init__(model, encoder, data, options, mesh)
        self.held_out_loss = None
        if held_out is not None:
            drawer = BatchDrawer(held_out, model.config.in_channels, options.seed)
            size, samples = options.batch_size, options.num_validation_samples
            self.held_out_loss = _LabelledHeldOutLoss(drawer, self._encode, samples, size, self.mesh)

    def activation_bytes(self) -> int:
        config, options = self.model.config, self.options
        size = (config.video_length, *config.sample_size)
        return options.batch_size * training_bytes(config, size, options.use_image_num)

    def next_commands(self, run: Path) -> list[str]:
        words = ["opensora", "generate-class", "--model_path", str(run), "--ae_path", self.options.ae_path]
        names = self.model.config.class_names
        return [shlex.join([*words, *(["--label", names[0]] if names else [])])]

    def gradients(self, latents: np.ndarray, part: HostBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        scale = self.scaler.scale / self.options.gradient_accumulation_steps
        return step_gradients(self.model, self._inputs(latents, part), scale, self.options.num_no_recompute)

    def flops(self, batch: list[HostBatch]) -> float:
        count, frames, height, width = batch[0]["latent_mask"].shape
        images = batch[0]["labels"].shape[1] - 1
        flops = step_flops(
            self.model.config,
            (frames - images, height, width),
            batch=count,
            num_images=images,
            num_no_recompute=self.options.num_no_recompute,
        )
        return float(len(batch) * flops)

    def judge(self, step: int, folder: Path) -> dict[str, float]:
        """The loss on held-out samples; writes videos of the classes."""
        metrics = {}
        if self.held_out_loss is not None:
            metrics["validation_mse"] = self.held_out_loss(self.model)
        if self.preview is not None:
            self.preview(self.model, folder, step)
        return metrics

    def to_files(self, arrays: Arrays, kind: str) -> dict[str, Arrays]:
        """The weights with the tables of positions, which the original reads from its file."""
        return {kind: {**position_tables(self.model.config), **arrays}}

    def from_files(self, files: Mapping[str, Arrays], kind: str) -> dict[str, Tensor]:
        return {name: ms.Tensor(value) for name, value in files[kind].items() if name not in POSITIONS}

    def _encode(self, batch: HostBatch, step: int) -> Batch:
        return self._inputs(self.encoder.latents(batch, step), batch)

    def _inputs(self, latents: np.ndarray, part: HostBatch) -> Batch:
        """The batch that `step_gradients` takes. Pictures after a video have its label."""
        labels = part["labels"]  # (B, 1+N, 1)
        inputs = Batch(
            latents=latents,
            noise=part["noise"],
            timestep=part["timestep"],
            labels=labels[:, 0, 0],
            num_images=labels.shape[1] - 1,
        )
        if self.options.snr_gamma is not None:
            inputs["weight"] = GaussianDiffusion().snr_weight(part["timestep"], self.options.snr_gamma)
        if not part["latent_mask"].all():
            inputs["latent_mask"] = part["latent_mask"]
        return inputs


class _LabelledHeldOutLoss(HeldOutLoss[Latte]):
    """The mean squared error of the predicted noise on held-out samples."""

    def error(self, model: Latte, batch: Batch) -> float:
        latents, mask = ms.Tensor(batch["latents"]), batch.get("latent_mask")
        output = model(
            GaussianDiffusion().q_sample(latents, batch["timestep"], ms.Tensor(batch["noise"])),
            batch["timestep"],
            batch["labels"],
            None if mask is None else ms.Tensor(mask),
            batch["num_images"],
        )
        noise = as_array(output)[:, : latents.shape[1]]
        return float(np.square(noise - batch["noise"]).mean())
