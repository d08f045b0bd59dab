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
from opensora.train.batches import HostBatch
from opensora.train.denoiser import DenoiserTask
from opensora.train.encoding import BatchEncoder
from opensora.train.latte_class.options import TrainClassOptions
from opensora.train.latte_class.step import step_gradients
from opensora.train.loss import Batch
from opensora.weights import Arrays

ms = mindspore()

Preview = Callable[[Latte, Path, int], None]
"""Writes videos of a few classes with the model as it is, into a folder, after a step."""


class ClassTask(DenoiserTask[Latte, TrainClassOptions]):
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
        self.preview = preview
        encoder = BatchEncoder(vae, None, options.seed, options.sample_posterior)
        super().__init__(model, encoder, data, held_out, options, mesh)

    def sample_bytes(self) -> int:
        config = self.model.config
        size = (config.video_length, *config.sample_size)
        return training_bytes(config, size, self.options.use_image_num)

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

    def held_out_error(self, batch: HostBatch, step: int) -> float:
        inputs = self._inputs(self.encoder.latents(batch, step), batch)
        latents, mask = ms.Tensor(inputs["latents"]), inputs.get("latent_mask")
        output = self.model(
            GaussianDiffusion().q_sample(latents, inputs["timestep"], ms.Tensor(inputs["noise"])),
            inputs["timestep"],
            inputs["labels"],
            None if mask is None else ms.Tensor(mask),
            inputs["num_images"],
        )
        noise = as_array(output)[:, : latents.shape[1]]
        return float(np.square(noise - inputs["noise"]).mean())

    def write_samples(self, step: int, folder: Path) -> None:
        """Write videos of the classes."""
        if self.preview is not None:
            self.preview(self.model, folder, step)

    def to_files(self, arrays: Arrays, kind: str) -> dict[str, Arrays]:
        """The weights with the tables of positions, which the original reads from its file."""
        return {kind: {**position_tables(self.model.config), **arrays}}

    def from_files(self, files: Mapping[str, Arrays], kind: str) -> dict[str, Tensor]:
        return {name: ms.Tensor(value) for name, value in files[kind].items() if name not in POSITIONS}

    def _inputs(self, latents: np.ndarray, part: HostBatch) -> Batch:
        """The batch that `step_gradients` takes. Pictures after a video have its label."""
        labels = part["labels"]  # (B, 1+N, 1)
        inputs = self.batch_inputs(latents, part)
        inputs["labels"] = labels[:, 0, 0]
        inputs["num_images"] = labels.shape[1] - 1
        return inputs
