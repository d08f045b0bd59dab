"""Training of text to video: samples become latents and embeddings, gradients of the step become an update."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from opensora.data.inputs import batch_latents
from opensora.data.loader import Loader
from opensora.diffusion import GaussianDiffusion
from opensora.models.causal_vae.model import CausalVAE
from opensora.models.latte.cost import step_flops
from opensora.models.latte.model import LatteT2V
from opensora.models.t5.model import T5Encoder
from opensora.nn.exchange import FrameExchange
from opensora.parallel.mesh import Mesh
from opensora.parallel.sequence import ShardedFrameExchange, expand_to_all_captions, local_batch, valid_frames
from opensora.parallel.zero import parameter_sharding
from opensora.runtime import compute_dtype, mindspore
from opensora.train.checkpoint import ONE_SHARD, Arrays
from opensora.train.ema import EMA
from opensora.train.monitor import Stopwatch
from opensora.train.muon import make_optimizer
from opensora.train.precision import LossScaler, compute_weights
from opensora.train.t2v.options import TrainOptions
from opensora.train.t2v.step import Batch, step_gradients

ms = mindspore()

TEXT = "text_encoder."
"""Prefix that keeps a jointly trained text encoder's names apart from the transformer's in one dict."""
GROUPS = (("model", "text_encoder"), ("ema", "text_encoder_ema"))
"""Files of a checkpoint for weights and their average: the transformer's, and those of a text encoder that is trained."""
DIFFUSION, POSTERIOR = 1, 2
"""Uses of random numbers of a row."""

Arrayed = dict[str, np.ndarray]


class Preview(Protocol):
    """Makes videos of a few prompts with the networks as they are (`pipeline/preview.py`)."""

    def __call__(
        self, transformer: LatteT2V, text_encoder: T5Encoder | None, folder: Path, step: int
    ) -> None: ...


class T2VTask:
    """Trains a transformer, alone or with its text encoder. Everything random in step n comes from (seed, n).

    text_encoder: may be None where samples hold embeddings; vae: where they hold latents. held_out: what validation measures on.
    mesh: the processes that train together, by default this one alone; each has all weights, teams of them share the frames of samples.
    preview: what a validation shows, for the process that shows it.
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
        self.preview = preview
        self.model, self.text_encoder, self.vae = model, text_encoder, vae
        self.data, self.held_out, self.options = data, held_out, options
        self.mesh = mesh or Mesh()
        sharding = parameter_sharding(self.mesh, options.parallel_mode)
        self.dtype = compute_dtype(options.number_format)
        # Where the optimizer's parts are shared out, no process needs all weights in float32.
        self._rounds = sharding.ranks > 1 and self.dtype != ms.float32
        self.optimizer = make_optimizer(options, options.max_train_steps, sharding, masters=self._rounds)
        self.scaler = LossScaler(options)
        self.weights = dict(model.weights)
        if options.train_text_encoder:
            assert text_encoder is not None
            self.weights.update({TEXT + name: value for name, value in text_encoder.weights.items()})
        self.ema = EMA(self.weights, options.ema_decay, sharding)
        self._share_weights(self.weights)
        self._paths: dict[int, list[str]] = {}
        self._encoded: dict[tuple[int, int], np.ndarray] = {}

    def batch(self, step: int) -> list[Arrayed]:
        """What a step is computed from, in the parts that go through the model together.

        The processes of a team get the same; teams share out what one process would get for all of them.
        """
        size, (team, teams) = self.options.samples_per_step, self.mesh.data
        first = ((step - 1) * teams + team) * size
        whole, self._paths[step] = self._draw(self.data, range(first, first + size), step, (team, teams))
        parts = self.options.gradient_accumulation_steps
        return [
            {name: np.split(value, parts)[part] for name, value in whole.items()} for part in range(parts)
        ]

    def samples(self, step: int) -> list[str]:
        return self._paths[step]

    def _draw(
        self, data: Loader, numbers: range, step: int, place: tuple[int, int] = (0, 1)
    ) -> tuple[Arrayed, list[str]]:
        """A joined batch with its timesteps and noise, and the paths of its samples.

        place: (which, of how many) batches this is of a step's, whose rows are counted over all of them.
        """
        batch, paths = data.batch(numbers)
        if data.source.videos is None:
            batch = {name: _pictures_apart(name, value) for name, value in batch.items()}
        mask = batch["latent_mask"]
        count = len(mask)
        rows = np.arange(place[0] * count, (place[0] + 1) * count)
        timestep = spread_timesteps(place[1] * count, np.random.default_rng([self.options.seed, step]))[rows]
        noise = RowNoise(self.options.seed, step, rows, DIFFUSION).standard_normal(
            (count, self.model.config.in_channels, *mask.shape[1:])
        )
        return batch | {"row": rows, "timestep": timestep, "noise": noise}, paths

    def step(self, step: int, batch: list[Arrayed]) -> dict[str, float]:
        """Encode what is not cached, forward and backward, clipping, AdamW, EMA. What is not finite moves nothing."""
        watch = Stopwatch()
        total: dict[str, Any] = {}
        losses: dict[str, list[np.ndarray]] = {}
        for number, part in enumerate(batch):
            with watch.part("vae"):
                latents = self._latents_in_turn(part, step, number)
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
        means = mean_terms(
            *all_terms(self.mesh, {name: np.concatenate(values) for name, values in losses.items()}, timestep)
        )
        return {
            **means,
            "grad_norm": norm,
            "learning_rate": rate,
            "flops": self._flops(batch),
            **watch.read(),
        }

    def _update(self, gradients: dict[str, Any]) -> tuple[float, float]:
        """(norm before clipping, learning rate); the gradients are times the loss scale."""
        norm, rate = self.optimizer.update(self.weights, gradients, self.scaler.scale)
        finite = math.isfinite(norm)
        if finite:
            self._share_weights(self.weights)
            self.ema.update(self.weights, self.optimizer.step)
            if self._rounds:
                self.weights.update(self.model.weights)
        self.scaler.update(finite)
        return norm, rate

    def _gradients(self, latents: Any, part: Arrayed) -> tuple[dict[str, Any], dict[str, Any]]:
        """(loss terms, gradients by weight) of one part of a batch, as its share of the mean over all parts."""
        texts, tape = self._texts(part, self.options.train_text_encoder)
        scale = self.scaler.scale / self.options.gradient_accumulation_steps
        inputs, exchange = self._own_frames(self._inputs(latents, texts, part))
        terms, gradients, by_text = step_gradients(
            self.model, inputs, scale, exchange, self.options.num_no_recompute
        )
        if tape is not None:
            if exchange is not None:
                by_text = ms.Tensor(
                    expand_to_all_captions(by_text.asnumpy(), texts.shape[1] - 1, self.mesh.sequence)
                )
            text_gradients, _ = tape[1].gradients([(tape[0], by_text.reshape(tape[0].shape))])
            gradients.update({TEXT + name: value for name, value in text_gradients.items()})
        return terms, gradients

    def _inputs(self, latents: Any, texts: Any, part: Arrayed) -> Batch:
        moving = self.data.source.videos is not None
        inputs = Batch(
            latents=latents,
            noise=part["noise"],
            timestep=part["timestep"],
            text_embeds=texts,
            temporal=moving,
        )
        inputs["text_mask"] = ms.Tensor(part["text_mask"])
        inputs["num_images"] = part["text_mask"].shape[1] - 1
        if self.options.snr_gamma is not None:
            inputs["weight"] = GaussianDiffusion().snr_weight(part["timestep"], self.options.snr_gamma)
        if not part["latent_mask"].all():
            inputs["latent_mask"] = part["latent_mask"]
        return inputs

    def _own_frames(self, inputs: Batch) -> tuple[Batch, FrameExchange | None]:
        """Of a team's inputs this process's frames, and how they meet the others; everything where no other has any."""
        group = self.mesh.sequence
        if group.size == 1:
            return inputs, None
        arrays: dict[str, Any] = {
            name: value.asnumpy() if isinstance(value, ms.Tensor) else value for name, value in inputs.items()
        }
        frames = arrays["latents"].shape[2] - inputs["num_images"]
        return cast(Batch, local_batch(arrays, group)), ShardedFrameExchange(group, frames)

    def _texts(self, part: Arrayed, keep: bool) -> tuple[Any, tuple[Any, Any] | None]:
        """Embeddings (B, 1+N, L, D), and where `keep` is set the encoder's own output with its tape."""
        if "text_embeds" in part:
            return ms.Tensor(part["text_embeds"]), None
        assert self.text_encoder is not None
        rows, length = part["input_ids"].shape[:2], part["input_ids"].shape[2]
        ids, mask = (ms.Tensor(part[name].reshape(-1, length)) for name in ("input_ids", "text_mask"))
        if keep:
            output, tape = self.text_encoder.forward_with_tape(ids, mask)
        else:
            output, tape = self.text_encoder(ids, mask), None
        return output.reshape((*rows, length, -1)), None if tape is None else (output, tape)

    def _latents_in_turn(self, part: Arrayed, step: int, number: int) -> np.ndarray:
        """The latents of a part of a step. Of a team of n, each process encodes one of the next n parts and tells the others."""
        group = self.mesh.sequence
        if "latents" in part or group.size == 1:
            return self._latents(part, step)
        if (step, number) not in self._encoded:
            parts = self.options.gradient_accumulation_steps
            coming = [(step + (number + i) // parts, (number + i) % parts) for i in range(group.size)]
            mine, place = coming[group.index]
            # Beyond the end of the run there is nothing to encode, and the last step stands in for it.
            chosen = part if group.index == 0 else self.batch(min(mine, self.options.max_train_steps))[place]
            encoded = group.all_gather(ms.Tensor(self._latents(chosen, mine))).asnumpy()
            self._encoded = dict(zip(coming, np.split(encoded, group.size), strict=True))
        return self._encoded.pop((step, number))

    def _latents(self, part: Arrayed, step: int) -> np.ndarray:
        """Scaled latents (B, C, T+N, h, w): those of the cache, or a draw from what the autoencoder makes of pixels."""
        noise: Any = (
            RowNoise(self.options.seed, step, part["row"], POSTERIOR)
            if self.options.sample_posterior
            else None
        )
        return batch_latents(part, part["text_mask"].shape[1] - 1, self.vae, noise)

    def _flops(self, batch: list[Arrayed]) -> float:
        """Operations of the transformer in a step, on the process that has most frames."""
        count, frames, height, width = batch[0]["latent_mask"].shape
        texts, length = batch[0]["text_mask"].shape[1:]
        size = (frames - texts + 1, height, width)
        shape = {
            "batch": count,
            "text_length": length,
            "num_images": texts - 1,
            "ranks": self.mesh.sequence.size,
        }
        shape["num_no_recompute"] = self.options.num_no_recompute
        return float(
            len(batch)
            * step_flops(self.model.config, size, temporal=self.data.source.videos is not None, **shape)
        )

    def _share_weights(self, weights: Mapping[str, Any]) -> None:
        """Let the networks compute with these float32 weights, the transformer in its own number format."""
        model, text = _apart(weights)
        self.model.weights = compute_weights(model, self.dtype, self.options.level)
        if text:
            assert self.text_encoder is not None
            self.text_encoder.weights = text

    def validate(self, step: int, folder: Path) -> dict[str, float]:
        """The average's squared error on held-out samples; what it makes of the prompts is left in `folder`."""
        self._share_weights(self.ema.weights)
        measured = {} if self.held_out is None else {"validation_mse": self._held_out_error(self.held_out)}
        if self.preview is not None:
            self.preview(self.model, self.text_encoder, folder, step)
        self._share_weights(self.weights)
        return measured

    def _held_out_error(self, data: Loader) -> float:
        """The mean over batches, always with the same noise and timesteps; teams share the batches."""
        error, size, (team, teams) = 0.0, self.options.batch_size, self.mesh.data
        count = min(len(data), self.options.num_validation_samples)
        starts = range(0, max(count - size, 0) + 1, size)
        for first in starts[team::teams]:
            part, _ = self._draw(data, range(first, first + size), first)
            error += self._error(
                self._inputs(self._latents(part, first), self._texts(part, keep=False)[0], part)
            )
        return float(sum(self.mesh.world.agree(error))) / len(starts)

    def _error(self, whole: Batch) -> float:
        """The mean squared error of a batch, or what this process's frames add to it."""
        inputs, exchange = self._own_frames(whole)
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
        squares = np.square(output.asnumpy()[:, : latents.shape[1]] - inputs["noise"])
        if exchange is not None:
            squares = squares[
                :,
                :,
                valid_frames(
                    whole["latents"].shape[2] - whole["num_images"], whole["num_images"], self.mesh.sequence
                ),
            ]
        return float(squares.sum()) / whole["latents"].size

    def groups(self) -> Mapping[str, Arrays]:
        groups: dict[str, Arrays] = {}
        weights = {name: value.asnumpy() for name, value in self.optimizer.exact(self.weights).items()}
        for names, arrays in zip(GROUPS, (weights, self.ema.arrays()), strict=True):
            groups.update({name: part for name, part in zip(names, _apart(arrays), strict=True) if part})
        if self.optimizer.sharding.ranks == 1:
            groups[ONE_SHARD] = self.optimizer.state_arrays()
        return {**groups, "loss_scale": self.scaler.state_arrays()}

    def write_shard(self, folder: Path) -> None:
        if self.optimizer.sharding.ranks > 1:
            self.optimizer.write_shard(folder)

    def load_groups(self, groups: Mapping[str, Arrays], state: Mapping[str, Any]) -> None:
        self.weights, average = (_together(groups[model], groups.get(text, {})) for model, text in GROUPS)
        self.ema.load(average)
        self._share_weights(self.weights)
        self.optimizer.load_state_arrays(groups[ONE_SHARD])
        self.scaler.load_state_arrays(groups["loss_scale"])


def spread_timesteps(count: int, rng: np.random.Generator) -> np.ndarray:
    """One timestep from each of `count` equal parts, in random order: uniform for every sample, and evenly spread over a batch."""
    share = (rng.permutation(count) + rng.random(count)) / count
    return (share * 1000).astype(np.int64)


class RowNoise:
    """Standard normal numbers of which each row of a step has its own, whichever rows are drawn together."""

    def __init__(self, seed: int, step: int, rows: np.ndarray, use: int) -> None:
        self._generators = [np.random.default_rng([seed, step, int(row), use]) for row in rows]

    def standard_normal(self, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
        """(rows, ...), each row from its own generator."""
        return np.stack([rng.standard_normal(shape[1:], dtype) for rng in self._generators])


def all_terms(
    mesh: Mesh, terms: Mapping[str, np.ndarray], timestep: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Loss terms and timesteps, each (B,), of all processes behind one another; those that share samples add their summands."""
    said = mesh.world.agree(
        {"timestep": timestep.tolist(), **{name: value.tolist() for name, value in terms.items()}}
    )
    teams = [said[first : first + mesh.team.size] for first in range(0, len(said), mesh.team.size)]
    everywhere = {
        name: np.concatenate([np.sum([one[name] for one in team], 0) for team in teams]) for name in terms
    }
    return everywhere, np.concatenate([team[0]["timestep"] for team in teams])


def mean_terms(terms: Mapping[str, np.ndarray], timestep: np.ndarray) -> dict[str, float]:
    """Means of loss terms (B,), and of mse in each quarter of the timesteps (B,) that occurs: mse_q1 (least noise) to mse_q4."""
    means = {name: float(value.mean()) for name, value in terms.items()}
    quarters = timestep // 250
    return means | {
        f"mse_q{i + 1}": float(terms["mse"][quarters == i].mean()) for i in range(4) if (quarters == i).any()
    }


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
    return {
        name: ms.Tensor(value)
        for name, value in {**model, **{TEXT + name: value for name, value in text.items()}}.items()
    }
