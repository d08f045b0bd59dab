"""Training of text to video: samples become latents and embeddings, gradients of the step become an update."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from opensora.data.inputs import batch_latents
from opensora.data.workers import Loader
from opensora.diffusion import GaussianDiffusion
from opensora.models.causal_vae import CausalVAE
from opensora.models.flops import latte_forward
from opensora.models.latte import LatteT2V
from opensora.models.t5 import T5Encoder
from opensora.runtime import compute_dtype, mindspore
from opensora.train.checkpoint import Arrays
from opensora.train.ema import EMA
from opensora.train.monitor import Stopwatch
from opensora.train.optim import AdamW
from opensora.train.options import TrainOptions
from opensora.train.precision import LossScaler, compute_weights
from opensora.train.t2v import Batch, step_gradients

ms = mindspore()

TEXT = "text_encoder."
"""Prefix that keeps a jointly trained text encoder's names apart from the transformer's in one dict."""
GROUPS = (("model", "text_encoder"), ("ema", "text_encoder_ema"))
"""Files of a checkpoint for weights and their average: the transformer's, and those of a text encoder that is trained."""
RECOMPUTED = 4
"""Forwards that a step costs: one, as many operations for each of two kinds of gradients, and the one that backward repeats."""

Arrayed = dict[str, np.ndarray]


class T2VTask:
    """Trains a transformer, alone or with its text encoder. Everything random in step n comes from (seed, n).

    text_encoder: may be None where samples hold embeddings; vae: where they hold latents. held_out: what validation measures on.
    """

    def __init__(
        self,
        model: LatteT2V,
        text_encoder: T5Encoder | None,
        vae: CausalVAE | None,
        data: Loader,
        held_out: Loader | None,
        options: TrainOptions,
    ) -> None:
        self.model, self.text_encoder, self.vae = model, text_encoder, vae
        self.data, self.held_out, self.options = data, held_out, options
        self.optimizer, self.scaler = AdamW(options, options.max_train_steps), LossScaler(options)
        self.weights = dict(model.weights)
        if options.train_text_encoder:
            assert text_encoder is not None
            self.weights.update({TEXT + name: value for name, value in text_encoder.weights.items()})
        self.ema = EMA(self.weights, options.ema_decay)
        self.dtype = compute_dtype(options.number_format)
        self._share_weights(self.weights)
        self._paths: dict[int, list[str]] = {}

    def batch(self, step: int) -> list[Arrayed]:
        """What a step is computed from, in the parts that go through the model together."""
        size = self.options.samples_per_step
        whole, self._paths[step] = self._draw(self.data, range((step - 1) * size, step * size), step)
        parts = self.options.gradient_accumulation_steps
        return [{name: np.split(value, parts)[part] for name, value in whole.items()} for part in range(parts)]

    def samples(self, step: int) -> list[str]:
        return self._paths[step]

    def _draw(self, data: Loader, numbers: range, step: int) -> tuple[Arrayed, list[str]]:
        """A joined batch with its timesteps and noise, and the paths of its samples."""
        batch, paths = data.batch(numbers)
        if data.source.videos is None:
            batch = {name: _pictures_apart(name, value) for name, value in batch.items()}
        rng = np.random.default_rng([self.options.seed, step])
        mask = batch["attention_mask"]
        count = len(mask)
        shape = (count, self.model.config.in_channels, *mask.shape[1:])
        # One timestep from each of B equal parts: uniform for every sample, and evenly spread over a batch.
        share = (rng.permutation(count) + rng.random(count)) / count
        batch |= {"timestep": (share * 1000).astype(np.int64), "noise": rng.standard_normal(shape, np.float32)}
        return batch, paths

    def step(self, step: int, batch: list[Arrayed]) -> dict[str, float]:
        """Encode what is not cached, forward and backward, clipping, AdamW, EMA. What is not finite moves nothing."""
        watch = Stopwatch()
        total: dict[str, Any] = {}
        losses: dict[str, list[np.ndarray]] = {}
        for number, part in enumerate(batch):
            with watch.part("vae"):
                latents = self._latents(part, step, number)
            with watch.part("model"):
                terms, gradients = self._gradients(latents, part)
                for name, value in terms.items():
                    losses.setdefault(name, []).append(value.asnumpy())
                for name, gradient in gradients.items():
                    total[name] = total[name] + gradient if name in total else gradient.astype(ms.float32)
        with watch.part("optimizer"):
            norm, rate = self._update(total)
        self._paths.pop(step - 1, None)
        timestep = np.concatenate([part["timestep"] for part in batch])
        means = mean_terms({name: np.concatenate(values) for name, values in losses.items()}, timestep)
        return {**means, "grad_norm": norm, "learning_rate": rate, "flops": self._flops(batch), **watch.read()}

    def _update(self, gradients: dict[str, Any]) -> tuple[float, float]:
        """(norm before clipping, learning rate); the gradients are times the loss scale."""
        norm, rate = self.optimizer.update(self.weights, gradients, self.scaler.scale)
        finite = math.isfinite(norm)
        if finite:
            self._share_weights(self.weights)
            self.ema.update(self.weights, self.optimizer.step)
        self.scaler.update(finite)
        return norm, rate

    def _gradients(self, latents: Any, part: Arrayed) -> tuple[dict[str, Any], dict[str, Any]]:
        """(loss terms, gradients by weight) of one part of a batch, as its share of the mean over all parts."""
        texts, tape = self._texts(part, self.options.train_text_encoder)
        scale = self.scaler.scale / self.options.gradient_accumulation_steps
        terms, gradients, by_text = step_gradients(self.model, self._inputs(latents, texts, part), scale)
        if tape is not None:
            text_gradients, _ = tape[1].gradients([(tape[0], by_text.reshape(tape[0].shape))])
            gradients.update({TEXT + name: value for name, value in text_gradients.items()})
        return terms, gradients

    def _inputs(self, latents: Any, texts: Any, part: Arrayed) -> Batch:
        moving = self.data.source.videos is not None
        inputs = Batch(latents=latents, noise=part["noise"], timestep=part["timestep"], text_embeds=texts, temporal=moving)
        inputs["text_mask"] = ms.Tensor(part["cond_mask"])
        inputs["num_images"] = part["cond_mask"].shape[1] - 1
        if not part["attention_mask"].all():
            inputs["latent_mask"] = part["attention_mask"]
        return inputs

    def _texts(self, part: Arrayed, keep: bool) -> tuple[Any, tuple[Any, Any] | None]:
        """Embeddings (B, 1+N, L, D), and where `keep` is set the encoder's own output with its tape."""
        if "text_embeds" in part:
            return ms.Tensor(part["text_embeds"]), None
        assert self.text_encoder is not None
        rows, length = part["input_ids"].shape[:2], part["input_ids"].shape[2]
        ids, mask = (ms.Tensor(part[name].reshape(-1, length)) for name in ("input_ids", "cond_mask"))
        if keep:
            output, tape = self.text_encoder.forward_with_tape(ids, mask)
        else:
            output, tape = self.text_encoder(ids, mask), None
        return output.reshape((*rows, length, -1)), None if tape is None else (output, tape)

    def _latents(self, part: Arrayed, *numbers: int) -> Any:
        """Scaled latents (B, C, T+N, h, w); the draws of what the autoencoder makes of pixels depend on the seed and `numbers`."""
        rng = np.random.default_rng([self.options.seed, *numbers])
        return batch_latents(part, part["cond_mask"].shape[1] - 1, self.vae, rng)

    def _flops(self, batch: list[Arrayed]) -> float:
        """Operations of the transformer in a step."""
        count, frames, height, width = batch[0]["attention_mask"].shape
        texts, length = batch[0]["cond_mask"].shape[1:]
        size = (frames - texts + 1, height, width)
        moving = self.data.source.videos is not None
        forward = latte_forward(self.model.config, size, batch=count, text_length=length, num_images=texts - 1, temporal=moving)
        return float(RECOMPUTED * len(batch) * forward)

    def _share_weights(self, weights: Mapping[str, Any]) -> None:
        """Let the networks compute with these float32 weights, the transformer in its own number format."""
        model, text = _apart(weights)
        self.model.weights = compute_weights(model, self.dtype, self.options.level)
        if text:
            assert self.text_encoder is not None
            self.text_encoder.weights = text

    def validate(self, step: int, folder: Path) -> dict[str, float]:
        """The average's squared error on held-out samples, always with the same noise and timesteps."""
        if self.held_out is None:
            return {}
        self._share_weights(self.ema.weights)
        errors, size = [], self.options.batch_size
        count = min(len(self.held_out), self.options.num_validation_samples)
        for first in range(0, max(count - size, 0) + 1, size):
            part, _ = self._draw(self.held_out, range(first, first + size), first)
            inputs = self._inputs(ms.Tensor(self._latents(part, first)), self._texts(part, keep=False)[0], part)
            errors.append(self._error(inputs))
        self._share_weights(self.weights)
        return {"validation_mse": float(np.mean(errors))}

    def _error(self, inputs: Batch) -> float:
        noised = GaussianDiffusion().q_sample(inputs["latents"], inputs["timestep"], ms.Tensor(inputs["noise"]))
        mask = inputs.get("latent_mask")
        output = self.model(
            noised,
            inputs["timestep"],
            inputs["text_embeds"],
            inputs["text_mask"],
            None if mask is None else ms.Tensor(mask),
            num_images=inputs["num_images"],
            temporal=inputs["temporal"],
        )
        return float(np.mean(np.square(output.asnumpy()[:, : noised.shape[1]] - inputs["noise"])))

    def groups(self) -> Mapping[str, Arrays]:
        groups: dict[str, Arrays] = {}
        for names, arrays in zip(GROUPS, ({name: value.asnumpy() for name, value in self.weights.items()}, self.ema.arrays()), strict=True):
            groups.update({name: part for name, part in zip(names, _apart(arrays), strict=True) if part})
        return {**groups, "optimizer-0-of-1": self.optimizer.state_arrays(), "loss_scale": self.scaler.state_arrays()}

    def load_groups(self, groups: Mapping[str, Arrays], state: Mapping[str, Any]) -> None:
        self.weights, average = (_together(groups[model], groups.get(text, {})) for model, text in GROUPS)
        self.ema.load(average)
        self._share_weights(self.weights)
        self.optimizer.load_state_arrays(groups["optimizer-0-of-1"])
        self.scaler.load_state_arrays(groups["loss_scale"])


def mean_terms(terms: Mapping[str, np.ndarray], timestep: np.ndarray) -> dict[str, float]:
    """Means of loss terms (B,), and of mse in each quarter of the timesteps (B,) that occurs: mse_q1 (least noise) to mse_q4."""
    means = {name: float(value.mean()) for name, value in terms.items()}
    quarters = timestep // 250
    return means | {f"mse_q{i + 1}": float(terms["mse"][quarters == i].mean()) for i in range(4) if (quarters == i).any()}


def _pictures_apart(name: str, value: np.ndarray) -> np.ndarray:
    """Pictures without a video, which lie on the time axis, as samples of their own: (B, C, N, ...) or (B, N, ...) -> (B*N, ...)."""
    if name in ("pixels", "latents"):
        value = np.swapaxes(value, 1, 2)
        return np.expand_dims(value.reshape(-1, *value.shape[2:]), 2)
    return value.reshape(-1, 1, *value.shape[2:])


def _apart(weights: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the transformer's, the text encoder's)."""
    model = {name: value for name, value in weights.items() if not name.startswith(TEXT)}
    return model, {name.removeprefix(TEXT): value for name, value in weights.items() if name.startswith(TEXT)}


def _together(model: Arrays, text: Arrays) -> dict[str, Any]:
    return {name: ms.Tensor(value) for name, value in {**model, **{TEXT + name: value for name, value in text.items()}}.items()}
