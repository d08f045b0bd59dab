"""One training step of CausalVAE: reconstruction and KL, as in Open-Sora-Plan v1.1.0."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from opensora.data.video import contact_sheet, to_bytes, to_pixels, write_video
from opensora.models.causal_vae import CausalVAE, gaussian_kl
from opensora.nn.block import Block
from opensora.runtime import mindspore
from opensora.train.checkpoint import Arrays
from opensora.train.ema import EMA
from opensora.train.optim import AdamW
from opensora.train.options import TrainVAEOptions

ms = mindspore()
ops = ms.ops


Clips = Callable[[int], np.ndarray]
"""An endless, deterministic source: index -> uint8 (T, H, W, 3), every clip of the same shape."""


@dataclass(frozen=True)
class VAELoss:
    """Reconstruction and KL. The reconstruction term is summed over pixels and divided by videos and frames, KL by videos."""

    kl_weight: float = 1e-6
    logvar: float = 0.0
    squared_weight: float = 0.0
    """Share of the squared error that is added to the absolute one."""

    def __call__(self, video: Any, reconstruction: Any, moments: Any) -> tuple[Any, Any, Any]:
        """(loss, reconstruction term, KL term), scalars; video and reconstruction (B, 3, T, H, W), moments (B, 8, t, h, w)."""
        return _loss({}, video, reconstruction, moments, *self._constants())

    def gradient(self, video: Any, reconstruction: Any, moments: Any) -> tuple[Any, Any]:
        """The gradients of the loss by (reconstruction, moments)."""
        one, zero = ops.ones((), ms.float32), ops.zeros((), ms.float32)
        inputs = (video, reconstruction, moments, *self._constants())
        _, gradients = _loss.gradient({}, inputs, (one, zero, zero))
        return gradients[1], gradients[2]

    def _constants(self) -> tuple[float, float, float]:
        return self.kl_weight, self.logvar, self.squared_weight


def _loss_terms(weights: Any, video: Any, reconstruction: Any, moments: Any, kl_weight: float, logvar: float, squared_weight: float) -> Any:
    batch, frames = video.shape[0], video.shape[2]
    difference = video - reconstruction
    distance = ops.abs(difference) + squared_weight * difference * difference
    nll = ops.sum(distance * math.exp(-logvar) + logvar) / (batch * frames)
    kl = ops.sum(gaussian_kl(moments)) / batch
    return nll + kl_weight * kl, nll, kl


_loss = Block(_loss_terms)


class VAETask:
    """Trains a CausalVAE on clips; everything random in step n comes from (seed, n)."""

    def __init__(
        self,
        vae: CausalVAE,
        clips: Clips,
        validation: list[np.ndarray],
        options: TrainVAEOptions,
    ) -> None:
        self.vae, self.clips, self.validation = vae, clips, validation
        self.loss = VAELoss(kl_weight=options.kl_weight, squared_weight=options.squared_weight)
        self.optimizer = AdamW(options, options.max_train_steps)
        self.ema = EMA(vae.weights, options.ema_decay)
        self.batch_size, self.seed = options.batch_size, options.seed

    def batch(self, step: int) -> np.ndarray:
        """float32 (B, 3, T, H, W) in [-1, 1]."""
        first = (step - 1) * self.batch_size
        clips = [self.clips(first + i) for i in range(self.batch_size)]
        return to_pixels(np.stack(clips))

    def samples(self, step: int) -> list[str]:
        return [f"clip {(step - 1) * self.batch_size + i}" for i in range(self.batch_size)]

    def step(self, step: int, batch: np.ndarray) -> dict[str, float]:
        """Forward, backward, clipping, AdamW, EMA."""
        video = ms.Tensor(batch)
        rng = np.random.default_rng([self.seed, step])
        size = self.vae.latent_shape(video.shape)
        noise = ms.Tensor(rng.standard_normal(size, np.float32))
        reconstruction, posterior, tape = self.vae.forward_with_tape(video, noise)
        loss, nll, kl = self.loss(video, reconstruction, posterior.moments)
        by_reconstruction, by_moments = self.loss.gradient(video, reconstruction, posterior.moments)
        gradients, _ = tape.gradients([(reconstruction, by_reconstruction), (posterior.moments, by_moments)])
        norm, rate = self.optimizer.update(self.vae.weights, gradients)
        self.ema.update(self.vae.weights, step)
        difference = reconstruction.asnumpy() - batch
        psnr = -10 * np.log10(float(np.mean(np.square(difference / 2))) + 1e-10)
        terms = {"loss": loss, "nll": nll, "kl": kl}
        return {**{name: float(value.asnumpy()) for name, value in terms.items()}, "psnr": psnr, "grad_norm": norm, "learning_rate": rate}

    def validate(self, step: int, folder: Path) -> dict[str, float]:
        """PSNR of the EMA weights on the validation clips, and a sheet of the first clips above their reconstructions."""
        vae = CausalVAE(self.vae.config, self.ema.weights)
        errors, pairs = [], []
        for clip in self.validation:
            video = to_pixels(clip[None])
            result = vae.decode(vae.encode(ms.Tensor(video)).mode()).asnumpy()
            errors.append(float(np.mean(np.square((np.clip(result, -1, 1) - video) / 2))))
            pairs.append((clip, to_bytes(result)[0]))
        folder.mkdir(parents=True, exist_ok=True)
        rows = [np.concatenate((clip[::4], result[::4])) for clip, result in pairs[:6]]
        sheet = contact_sheet(np.concatenate(rows), columns=2 * len(pairs[0][0][::4]))
        write_video(folder / f"step-{step:08d}.png", sheet[None], fps=1)
        return {"validation_psnr": float(-10 * np.log10(np.mean(errors)))}

    def groups(self) -> Mapping[str, Arrays]:
        return {
            "model": {name: value.asnumpy() for name, value in self.vae.weights.items()},
            "ema": self.ema.arrays(),
            "optimizer-0-of-1": self.optimizer.state_arrays(),
        }

    def load_groups(self, groups: Mapping[str, Arrays], state: Mapping[str, Any]) -> None:
        self.vae.weights = {name: ms.Tensor(value) for name, value in groups["model"].items()}
        self.ema.load({name: ms.Tensor(value) for name, value in groups["ema"].items()})
        self.optimizer.load_state_arrays(groups["optimizer-0-of-1"], int(state["step"]))
