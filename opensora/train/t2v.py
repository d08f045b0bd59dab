"""One training step of text-to-video: noise a batch of latents, predict, walk back, update (Open-Sora-Plan v1.1.0)."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np

from opensora.data.cache import LatentCache
from opensora.data.tokenizer import Tokenizer
from opensora.diffusion import GaussianDiffusion
from opensora.diffusion.loss import loss_terms
from opensora.models.latte import LatteT2V
from opensora.models.t5 import T5Encoder
from opensora.nn.block import Block
from opensora.nn.exchange import Alone
from opensora.parallel.mesh import Mesh
from opensora.parallel.sequence import FrameExchange, own_batch
from opensora.parallel.zero import shares_of
from opensora.runtime import compute_dtype, mindspore
from opensora.train.checkpoint import ONE_SHARD, Arrays
from opensora.train.ema import EMA
from opensora.train.monitor import Stopwatch
from opensora.train.optim import AdamW, clip_scale
from opensora.train.options import TrainOptions
from opensora.train.precision import LossScaler, compute_weights

ms = mindspore()
ops = ms.ops

TEXT = "text_encoder."
"""Prefix that keeps a jointly trained text encoder's names apart from the transformer's in one dict."""


class Batch(TypedDict, total=False):
    """What a step is computed from. Arrays of the host or of the device; the masks and num_images may be absent."""

    latents: Any  # (B, 4, T+N, H, W), scaled to unit variance
    timestep: Any  # (B,) whole numbers below 1000
    noise: Any  # as latents
    text_embeds: Any  # (B, L, D) or (B, 1+N, L, D)
    text_mask: Any  # (B, L) or (B, 1+N, L), 1 = keep
    latent_mask: Any  # (B, T+N, H, W), 1 = keep
    share: Any  # (B,) the part of a sample's loss that these frames make up, where others are on other devices
    num_images: int


def _weighted_loss(weights: Any, output: Any, latents: Any, noise: Any, coefficients: Any, mask: Any, share: Any) -> Any:
    loss, mse, vb = loss_terms(output, latents, noise, coefficients, mask)
    if share is not None:
        loss, mse, vb = loss * share, mse * share, vb * share
    return ops.mean(loss), loss, mse, vb


_loss = Block(_weighted_loss)


def step_gradients(
    model: LatteT2V, batch: Batch, loss_scale: float = 1.0, exchange: Alone | None = None
) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """(loss terms, gradients by weight, gradient by text_embeds) of the mean loss over a batch; terms are `loss`, `mse`, `vb`, (B,).

    The gradients are those of the loss times `loss_scale`, in the number format of the model's weights. exchange: as in a call of the
    model, for a batch of some of the frames; terms and gradients are then this device's summands.
    """
    diffusion = GaussianDiffusion()
    latents, noise, text_embeds = _tensor(batch["latents"]), _tensor(batch["noise"]), _tensor(batch["text_embeds"])
    timestep = np.asarray(batch["timestep"].asnumpy() if isinstance(batch["timestep"], ms.Tensor) else batch["timestep"])
    mask = _tensor(batch.get("latent_mask"))
    noised = diffusion.q_sample(latents, timestep, noise)
    images = batch.get("num_images", 0)
    output, tape = model.forward_with_tape(
        noised, timestep, text_embeds, _tensor(batch.get("text_mask")), mask, num_images=images, exchange=exchange
    )
    inputs = (output, latents, noise, diffusion.loss_coefficients(timestep), mask, _tensor(batch.get("share")))
    mean, loss, mse, vb = _loss({}, *inputs)
    outward = (ops.full_like(mean, loss_scale), ops.zeros_like(loss), ops.zeros_like(mse), ops.zeros_like(vb))
    _, by_input = _loss.gradient({}, inputs, outward)
    gradients, (by_text,) = tape.gradients([(output, by_input[0])], wanted=[text_embeds])
    return {"loss": loss, "mse": mse, "vb": vb}, gradients, by_text


def train_step(model: LatteT2V, batch: Batch, optimizer: AdamW) -> tuple[dict[str, Any], dict[str, Any], float]:
    """One step in place: (loss terms, gradients as the optimizer took them, their global norm before clipping)."""
    terms, gradients, _ = step_gradients(model, batch)
    norm, _ = optimizer.update(model.weights, gradients)
    scale = clip_scale(norm, optimizer.options.max_grad_norm)
    return terms, {name: gradient * scale for name, gradient in gradients.items()}, norm


def _tensor(value: Any) -> Any:
    return ms.Tensor(value) if isinstance(value, np.ndarray) else value


class T2VTask:
    """Trains a transformer and, with it, its text encoder, on cached latents; everything random in step n comes from (seed, n)."""

    def __init__(
        self,
        model: LatteT2V,
        text_encoder: T5Encoder,
        tokenizer: Tokenizer,
        latents: LatentCache,
        held_out: LatentCache,
        options: TrainOptions,
        mesh: Mesh | None = None,
    ) -> None:
        """mesh: the processes that train together, by default this one alone; every one has the same weights."""
        self.model, self.text_encoder, self.tokenizer = model, text_encoder, tokenizer
        self.latents, self.held_out = latents, held_out
        self.options = options
        self.mesh = mesh or Mesh()
        shares = shares_of(self.mesh, options.parallel_mode)
        self.optimizer, self.scaler = AdamW(options, options.max_train_steps, shares), LossScaler(options)
        self.weights = {**model.weights, **{TEXT + name: value for name, value in text_encoder.weights.items()}}
        self.ema = EMA(self.weights, options.ema_decay, shares)
        self.dtype = compute_dtype(options.number_format)
        self._share_weights(self.weights)

    def batch(self, step: int) -> list[dict[str, np.ndarray]]:
        """Latents, captions' ids, timesteps and noise of a step, in the parts that go through the model together.

        Processes that share samples get the same, others their own part of what one process would get for all.
        """
        numbers = self._numbers(step)
        (team, teams), size = self.mesh.data, len(numbers)
        samples = [self.latents.sample(number, self.options.seed) for number in numbers]
        # With a last 1, since a generator of (seed, number) would be that of a step.
        generators = [np.random.default_rng([self.options.seed, number, 1]) for number in numbers]
        captions = [
            "" if rng.random() < self.options.caption_dropout else self.latents.captions[i]
            for i, rng in zip(samples, generators, strict=True)
        ]
        timesteps = spread_timesteps(size * teams, np.random.default_rng([self.options.seed, step]))[team * size : (team + 1) * size]
        whole = self._batch(self.latents, samples, captions, timesteps, generators)
        parts = range(self.options.gradient_accumulation_steps)
        return [{name: np.split(value, len(parts))[part] for name, value in whole.items()} for part in parts]

    def samples(self, step: int) -> list[str]:
        return [f"latents {self.latents.sample(number, self.options.seed)}" for number in self._numbers(step)]

    def _numbers(self, step: int) -> range:
        """This process's draws of a step, counted over the whole run."""
        size, (team, teams) = self.options.samples_per_step, self.mesh.data
        first = ((step - 1) * teams + team) * size
        return range(first, first + size)

    def _batch(
        self,
        source: LatentCache,
        samples: list[int],
        captions: list[str],
        timesteps: np.ndarray,
        generators: Sequence[np.random.Generator],
    ) -> dict[str, np.ndarray]:
        """generators: one for each sample, so that a sample does not depend on its neighbours."""
        latents = [source.latents(i, rng) for i, rng in zip(samples, generators, strict=True)]
        input_ids, mask = self.tokenizer(captions, self.model.config.model_max_length)
        return {
            "latents": np.stack(latents),
            "noise": np.stack([rng.standard_normal(latents[0].shape, np.float32) for rng in generators]),
            "timestep": timesteps,
            "input_ids": input_ids,
            "text_mask": mask,
        }

    def step(self, step: int, batch: list[dict[str, np.ndarray]]) -> dict[str, float]:
        """Forward and backward through both networks, clipping, AdamW, EMA."""
        watch = Stopwatch()
        with watch.part("model"):
            terms, gradients = self._gradients(batch)
        with watch.part("optimizer"):
            norm, rate = self.optimizer.update(self.weights, gradients, self.scaler.scale)
            finite = math.isfinite(norm)
            if finite:
                self._share_weights(self.weights)
                self.ema.update(self.weights, self.optimizer.step)
        scale = {"loss_scale": self.scaler.scale} if self.scaler.dynamic else {}
        self.scaler.update(finite)
        return {**terms, "grad_norm": norm, "learning_rate": rate, **scale, **watch.read()}

    def _gradients(self, parts: list[dict[str, np.ndarray]]) -> tuple[dict[str, float], dict[str, Any]]:
        """Mean terms and mean float32 gradients over the parts of a batch; the gradients are times the loss scale."""
        terms: dict[str, list[np.ndarray]] = {}
        total: dict[str, Any] = {}
        for part in parts:
            of_part, gradients = self._part_gradients(part)
            for name, value in of_part.items():
                terms.setdefault(name, []).append(value.asnumpy())
            for name, gradient in gradients.items():
                total[name] = total[name] + gradient if name in total else gradient.astype(ms.float32)
        timestep = np.concatenate([part["timestep"] for part in parts])
        return mean_terms(*all_terms(self.mesh, {name: np.concatenate(values) for name, values in terms.items()}, timestep)), total

    def _part_gradients(self, batch: dict[str, np.ndarray]) -> tuple[dict[str, Any], dict[str, Any]]:
        mask = ms.Tensor(batch["text_mask"])
        text_embeds, tape = self.text_encoder.forward_with_tape(ms.Tensor(batch["input_ids"]), mask)
        inputs, exchange = self._own_frames(batch)
        inputs |= Batch(text_embeds=text_embeds, text_mask=mask)
        scale = self.scaler.scale / self.options.gradient_accumulation_steps
        terms, gradients, by_text = step_gradients(self.model, inputs, scale, exchange)
        text_gradients, _ = tape.gradients([(text_embeds, by_text)])
        gradients.update({TEXT + name: value for name, value in text_gradients.items()})
        return terms, gradients

    def _own_frames(self, batch: dict[str, np.ndarray]) -> tuple[Batch, Alone]:
        """This process's frames of a batch, and how they meet the others."""
        inputs = Batch(latents=batch["latents"], noise=batch["noise"], timestep=batch["timestep"])
        group = self.mesh.sequence
        if group.size == 1:
            return inputs, Alone()
        return cast(Batch, own_batch(inputs, group)), FrameExchange(group, batch["latents"].shape[2])

    def _share_weights(self, weights: Mapping[str, Any]) -> None:
        """Let the networks compute with these float32 weights, the transformer in its own number format."""
        transformer = {name: value for name, value in weights.items() if not name.startswith(TEXT)}
        self.model.weights = compute_weights(transformer, self.dtype, self.options.level)
        self.text_encoder.weights = {name.removeprefix(TEXT): value for name, value in weights.items() if name.startswith(TEXT)}

    def validate(self, step: int, folder: Path) -> dict[str, float]:
        """The EMA's loss on held-out latents, always with the same noise and timesteps; several processes share the batches."""
        self._share_weights(self.ema.weights)
        size, (team, teams) = self.options.batch_size, self.mesh.data
        starts = range(0, len(self.held_out.captions) - size + 1, size)
        losses = []
        for first in starts[team::teams]:
            samples = list(range(first, first + size))
            generators = [np.random.default_rng([self.options.seed, i, 1]) for i in samples]
            timesteps = spread_timesteps(size, np.random.default_rng([self.options.seed, first]))
            batch = self._batch(self.held_out, samples, [self.held_out.captions[i] for i in samples], timesteps, generators)
            losses.append(self._loss(batch))
        self._share_weights(self.weights)
        everywhere = self.mesh.world.agree(float(sum(losses)))
        return {"validation_mse": sum(everywhere) / len(starts)}

    def _loss(self, batch: dict[str, np.ndarray]) -> float:
        mask = ms.Tensor(batch["text_mask"])
        text_embeds = self.text_encoder(ms.Tensor(batch["input_ids"]), mask)
        inputs, exchange = self._own_frames(batch)
        latents, noise = ms.Tensor(inputs["latents"]), ms.Tensor(inputs["noise"])
        noised = GaussianDiffusion().q_sample(latents, batch["timestep"], noise)
        output = self.model(noised, batch["timestep"], text_embeds, mask, exchange=exchange)
        errors = np.square(output.asnumpy()[:, : latents.shape[1]] - inputs["noise"])
        if "latent_mask" in inputs:
            errors = errors * inputs["latent_mask"][:, None]
        return float(errors.sum()) / batch["latents"].size

    def groups(self) -> Mapping[str, Arrays]:
        groups = {
            **_as_groups("model", "text_encoder", {name: value.asnumpy() for name, value in self.weights.items()}),
            **_as_groups("ema", "text_encoder_ema", self.ema.arrays()),
            "loss_scale": self.scaler.state_arrays(),
        }
        if self.optimizer.shares.ranks == 1:
            groups[ONE_SHARD] = self.optimizer.state_arrays()
        return groups

    def write_shard(self, folder: Path) -> None:
        if self.optimizer.shares.ranks > 1:
            self.optimizer.write_shard(folder)

    def load_groups(self, groups: Mapping[str, Arrays], state: Mapping[str, Any]) -> None:
        self.weights = _from_groups(groups["model"], groups["text_encoder"])
        self.ema.load(_from_groups(groups["ema"], groups["text_encoder_ema"]))
        self._share_weights(self.weights)
        self.optimizer.load_state_arrays(groups[ONE_SHARD])
        self.scaler.load_state_arrays(groups["loss_scale"])


def spread_timesteps(count: int, rng: np.random.Generator) -> np.ndarray:
    """One timestep from each of `count` equal parts, in random order: uniform for every sample, and evenly spread over a batch."""
    share = (rng.permutation(count) + rng.random(count)) / count
    return (share * 1000).astype(np.int64)


def all_terms(mesh: Mesh, terms: Mapping[str, np.ndarray], timestep: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Loss terms and timesteps, each (B,), of all processes behind one another; those that share samples add their summands."""
    said = mesh.world.agree({"timestep": timestep.tolist(), **{name: value.tolist() for name, value in terms.items()}})
    teams = [said[first : first + mesh.team.size] for first in range(0, len(said), mesh.team.size)]
    everywhere = {name: np.concatenate([np.sum([one[name] for one in team], 0) for team in teams]) for name in terms}
    return everywhere, np.concatenate([team[0]["timestep"] for team in teams])


def mean_terms(terms: Mapping[str, np.ndarray], timestep: np.ndarray) -> dict[str, float]:
    """Means of loss terms (B,), and of mse in each quarter of the timesteps (B,) that occurs: mse_q1 (least noise) to mse_q4."""
    means = {name: float(value.mean()) for name, value in terms.items()}
    quarters = timestep // 250
    return means | {f"mse_q{i + 1}": float(terms["mse"][quarters == i].mean()) for i in range(4) if (quarters == i).any()}


def _as_groups(model: str, text: str, arrays: Arrays) -> dict[str, dict[str, np.ndarray]]:
    return {
        model: {name: value for name, value in arrays.items() if not name.startswith(TEXT)},
        text: {name.removeprefix(TEXT): value for name, value in arrays.items() if name.startswith(TEXT)},
    }


def _from_groups(model: Arrays, text: Arrays) -> dict[str, Any]:
    both = {**model, **{TEXT + name: value for name, value in text.items()}}
    return {name: ms.Tensor(value) for name, value in both.items()}
