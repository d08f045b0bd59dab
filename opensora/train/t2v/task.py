"""The text-to-video task of the training loop: the transformer, alone or with its text encoder."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from opensora.data.loader import Loader
from opensora.diffusion import GaussianDiffusion
from opensora.models.causal_vae.model import CausalVAE
from opensora.models.latte.cost import step_flops, training_bytes
from opensora.models.latte.model import LatteT2V
from opensora.models.t5.model import T5Encoder
from opensora.nn import Tensor
from opensora.parallel.mesh import Mesh
from opensora.parallel.sequence import expand_to_all_captions, valid_frames
from opensora.runtime import mindspore
from opensora.train.batches import HostBatch
from opensora.train.denoiser import AVERAGE, MODEL, DenoiserTask
from opensora.train.encoding import BatchEncoder
from opensora.train.loss import Batch, OwnLoss
from opensora.train.t2v.options import TrainOptions
from opensora.train.t2v.step import split_frames, step_gradients
from opensora.weights import Arrays
from opensora.weights.folder import find_autoencoder

ms = mindspore()

TEXT = "text_encoder."
"""Prefix of a jointly trained text encoder's weights, in one dict with the transformer's."""
FILES = {MODEL: "text_encoder", AVERAGE: "text_encoder_ema"}
"""Files of a checkpoint for a trained text encoder, beside the transformer's."""


class Preview(Protocol):
    """Writes videos of a few prompts with the networks as they are (`pipeline/preview.py`)."""

    def __call__(
        self, transformer: LatteT2V, text_encoder: T5Encoder | None, folder: Path, step: int
    ) -> None: ...


class T2VTask(DenoiserTask[LatteT2V, TrainOptions]):
    """Trains a transformer. Everything random in step n depends on the seed and n only.

    text_encoder: None if samples hold embeddings. vae: None if they hold latents. held_out: samples of the
    validation loss. mesh: the processes that train together, by default this one alone; each has all weights,
    and the processes of a team share the frames of their samples. preview: called at each validation, on the
    process that writes samples. loss: in place of the diffusion loss.
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
        loss: OwnLoss | None = None,
    ) -> None:
        self.text_encoder, self.preview, self.loss = text_encoder, preview, loss
        beside = {}
        if options.train_text_encoder:
            assert text_encoder is not None
            beside = {TEXT + name: value for name, value in text_encoder.weights.items()}
        encoder = BatchEncoder(vae, text_encoder, options.seed, options.sample_posterior)
        super().__init__(model, encoder, data, held_out, options, mesh, beside)

    def sample_bytes(self) -> int:
        config = self.model.config
        size = (config.video_length, *config.sample_size)
        return training_bytes(config, size, self.options.use_image_num)

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

    def gradients(self, latents: np.ndarray, part: HostBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        trains_text = self.options.train_text_encoder
        if trains_text:
            texts, output, tape = self.encoder.texts_with_tape(part)
        else:
            texts = self.encoder.texts(part)
        inputs, exchange = split_frames(self._inputs(latents, texts, part), self.mesh.sequence)
        scale = self.scaler.scale / self.options.gradient_accumulation_steps
        terms, gradients, by_text = step_gradients(
            self.model, inputs, scale, exchange, self.options.num_no_recompute, self.loss
        )
        if trains_text:
            if exchange is not None:
                by_text = ms.Tensor(
                    expand_to_all_captions(by_text.asnumpy(), texts.shape[1] - 1, self.mesh.sequence)
                )
            text_gradients, _ = tape.gradients([(output, by_text.reshape(output.shape))])
            gradients.update({TEXT + name: value for name, value in text_gradients.items()})
        return terms, gradients

    def held_out_error(self, batch: HostBatch, step: int) -> float:
        whole = self._inputs(self.encoder.latents(batch, step), self.encoder.texts(batch), batch)
        inputs, exchange = split_frames(whole, self.mesh.sequence)
        latents, mask = ms.Tensor(inputs["latents"]), inputs.get("latent_mask")
        output = self.model(
            GaussianDiffusion().q_sample(latents, inputs["timestep"], ms.Tensor(inputs["noise"])),
            inputs["timestep"],
            ms.Tensor(inputs["text_embeds"]),
            ms.Tensor(inputs["text_mask"]),
            None if mask is None else ms.Tensor(mask),
            num_images=inputs["num_images"],
            temporal=inputs["temporal"],
            exchange=exchange,
        )
        squares = np.square(output.asnumpy()[:, : latents.shape[1]] - inputs["noise"])  # (B, C, T+N, H, W)
        if exchange is not None:
            images = whole["num_images"]
            frames = whole["latents"].shape[2] - images
            squares = squares[:, :, valid_frames(frames, images, self.mesh.sequence)]  # without padding
        return float(squares.sum()) / whole["latents"].size

    def _inputs(self, latents: np.ndarray, texts: Tensor, part: HostBatch) -> Batch:
        """The batch that `step_gradients` takes."""
        inputs = self.batch_inputs(latents, part)
        inputs["text_embeds"] = texts
        inputs["text_mask"] = ms.Tensor(part["text_mask"])
        inputs["num_images"] = part["text_mask"].shape[1] - 1
        inputs["temporal"] = self.batches.has_videos
        return inputs

    def _set_weights(self, weights: Mapping[str, Tensor]) -> None:
        model, text = _split_text(weights)
        super()._set_weights(model)
        if text:
            assert self.text_encoder is not None
            self.text_encoder.weights = text

    def flops(self, batch: list[HostBatch]) -> float:
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

    def write_samples(self, step: int, folder: Path) -> None:
        """Write videos of the prompts."""
        if self.preview is not None:
            self.preview(self.model, self.text_encoder, folder, step)

    def to_files(self, arrays: Arrays, kind: str) -> dict[str, Arrays]:
        parts = zip((kind, FILES[kind]), _split_text(arrays), strict=True)
        return {name: part for name, part in parts if part}

    def from_files(self, files: Mapping[str, Arrays], kind: str) -> dict[str, Tensor]:
        text = files.get(FILES[kind], {})
        joined = {**files[kind], **{TEXT + name: value for name, value in text.items()}}
        return {name: ms.Tensor(value) for name, value in joined.items()}


def _split_text(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(the transformer's weights, the text encoder's) under their own names."""
    model = {name: value for name, value in weights.items() if not name.startswith(TEXT)}
    return model, {name.removeprefix(TEXT): value for name, value in weights.items() if name.startswith(TEXT)}
