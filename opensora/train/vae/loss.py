"""The autoencoder's loss: reconstruction, perceptual, KL and adversarial terms (arXiv:2012.09841)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from opensora.engine.block import Block, Weights
from opensora.models.causal_vae.posterior import gaussian_kl
from opensora.models.discriminator import Discriminator
from opensora.models.lpips import LPIPS
from opensora.nn import Tensor
from opensora.runtime import mindspore
from opensora.train.vae.distance import clip_distances

ms = mindspore()
ops = ms.ops

LARGEST_WEIGHT = 1e4
"""Upper bound of the adaptive weight, before it is multiplied by disc_weight."""

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""(images, reconstructions), both (N, 3, H, W) in [-1, 1] -> distances (N, 1, 1, 1): LPIPS or another
differentiable function."""


@dataclass(frozen=True)
class GeneratorTerms:
    """The autoencoder's loss, metrics to log, and gradients of the loss."""

    loss: float
    log: dict[str, float]
    """total_loss, rec_loss, nll_loss, kl_loss, logvar and, with the adversarial term, g_loss, d_weight,
    disc_factor."""
    by_reconstruction: Tensor  # (B, 3, T, H, W)
    by_moments: Tensor  # (B, 2*C, t, h, w)
    by_logvar: float


@dataclass(frozen=True)
class DiscriminatorTerms:
    """The discriminator's loss, metrics to log, and gradients of the loss."""

    loss: float
    log: dict[str, float]
    """disc_loss, and the mean logits_real and logits_fake."""
    gradients: dict[str, Tensor]
    """Gradients by weight name."""


@dataclass
class VAELoss:
    """The loss of Open-Sora-Plan v1.1.0 and its gradients.

        discriminator = Discriminator.from_weights(weights, dims=3)
        loss = VAELoss(discriminator=discriminator, perceptual=LPIPS.from_weights(vgg), disc_start=2001)
        loss.generator(video, reconstruction, moments, step, last_layer)     # for the autoencoder
        loss.discriminate(video, reconstruction, step)                       # for the discriminator, after it

    Videos and reconstructions are (B, 3, T, H, W) in [-1, 1]. `moments`, (B, 2*C, t, h, w), are the
    posterior's mean and log-variance. `step` counts from 0.

    The error of a pixel is its absolute error plus `perceptual_weight` times the perceptual distance of its
    frame. Its negative log-likelihood is error / exp(logvar) + logvar; these are summed over pixels and
    divided by the number of frames in the batch. The KL divergence is divided by the number of videos.

    Both methods run the discriminator in training mode and update its running statistics, as the reference
    does. `logvar` may change between calls; a run that learns it uses `GeneratorTerms.by_logvar`.
    """

    kl_weight: float = 1e-6
    logvar: float = 0.0
    squared_weight: float = 0.0
    """Weight of the squared error, added to the absolute error (not in the reference)."""
    motion_weight: float = 0.0
    """Weight of the same error of frame differences (not in the reference)."""
    motion_strength_weight: float = 0.0
    """Weight of the error of how much each patch changes (not in the reference)."""
    perceptual: Perceptual | None = None
    perceptual_weight: float = 1.0
    discriminator: Discriminator | None = None
    disc_start: int = 0
    """First step with the adversarial term and updates of the discriminator."""
    disc_weight: float = 0.5
    disc_loss: Literal["hinge", "vanilla"] = "hinge"
    all_reduce_mean: Callable[[Tensor], Tensor] | None = None
    """The mean of a gradient over devices with different clips, so that all use one adaptive weight."""

    def generator(
        self,
        video: Tensor,
        reconstruction: Tensor,
        moments: Tensor,
        step: int = 0,
        last_layer: Callable[[Tensor], Tensor] | None = None,
    ) -> GeneratorTerms:
        """The autoencoder's loss.

        last_layer: maps a gradient by the reconstruction to the gradient by the last layer's weight. The
        adversarial term is multiplied by the ratio of the norms of two such gradients, the likelihood's to
        the term's own. None leaves the adversarial term out.
        """
        batch, frames = video.shape[0], video.shape[2]
        rows, pixels = batch * frames, video.size // (batch * frames)
        precision = math.exp(-self.logvar)
        weights = self.squared_weight, self.motion_weight, self.motion_strength_weight
        inputs = (video, reconstruction, moments, *weights)
        distances, divergences = _TERMS({}, *inputs)
        distance, kl = (float(value.asnumpy().sum(dtype=np.float64)) for value in (distances, divergences))
        outward = (
            ops.full_like(distances, precision / rows),
            ops.full_like(divergences, self.kl_weight / batch),
        )
        _, (_, by_reconstruction, by_moments, *_) = _TERMS.gradient({}, inputs, outward)
        if self.perceptual is not None and self.perceptual_weight > 0:
            scale = self.perceptual_weight * pixels
            perceptual, by_frames = _perceptual_terms(
                self.perceptual, video, reconstruction, scale * precision / rows
            )
            distance += scale * perceptual
            by_reconstruction = by_reconstruction + by_frames
        nll, kl = distance * precision / rows + self.logvar * pixels, kl / batch
        log = {"rec_loss": distance / (rows * pixels), "nll_loss": nll, "kl_loss": kl, "logvar": self.logvar}
        total = nll + self.kl_weight * kl
        if self.discriminator is not None and last_layer is not None:
            g_loss, by_g_loss = self._adversarial(reconstruction)
            weight = self.disc_weight * adaptive_weight(
                *(self._mean(last_layer(by)) for by in (by_reconstruction, by_g_loss))
            )
            factor = self._factor(step)
            total += weight * factor * g_loss
            by_reconstruction = by_reconstruction + (weight * factor) * by_g_loss
            log |= {"g_loss": g_loss, "d_weight": weight, "disc_factor": factor}
        by_logvar = pixels - distance * precision / rows
        return GeneratorTerms(total, {"total_loss": total, **log}, by_reconstruction, by_moments, by_logvar)

    def discriminate(self, video: Tensor, reconstruction: Tensor, step: int = 0) -> DiscriminatorTerms:
        """The discriminator's loss: the mean of the penalties of real and of reconstructed patches."""
        assert self.discriminator is not None
        factor = self._factor(step)
        total, means = 0.0, []
        gradients: dict[str, Tensor] = {}
        for pixels, sign in ((video, 1.0), (reconstruction, -1.0)):
            logits, statistics, tape = self.discriminator.forward_with_tape(pixels)
            self.discriminator.weights.update(statistics)
            values = logits.asnumpy().astype(np.float64)
            penalty, slope = PENALTIES[self.disc_loss](sign * values)
            total += 0.5 * factor * float(penalty.mean())
            means.append(float(values.mean()))
            by_logits = ms.Tensor((0.5 * factor * sign * slope / values.size).astype(np.float32))
            for name, gradient in tape.gradients([(logits, by_logits)])[0].items():
                gradients[name] = gradients[name] + gradient if name in gradients else gradient
        return DiscriminatorTerms(
            total, {"disc_loss": total, "logits_real": means[0], "logits_fake": means[1]}, gradients
        )

    def _adversarial(self, reconstruction: Tensor) -> tuple[float, Tensor]:
        """(minus the mean logit of the reconstruction, its gradient by the reconstruction)."""
        assert self.discriminator is not None
        logits, statistics, tape = self.discriminator.forward_with_tape(reconstruction)
        self.discriminator.weights.update(statistics)
        by_logits = ms.Tensor(np.full(logits.shape, -1.0 / logits.size, np.float32))
        _, (by_reconstruction,) = tape.gradients([(logits, by_logits)], wanted=[reconstruction])
        return -float(logits.asnumpy().mean(dtype=np.float64)), by_reconstruction

    def _mean(self, gradient: Tensor) -> Tensor:
        return gradient if self.all_reduce_mean is None else self.all_reduce_mean(gradient)

    def _factor(self, step: int) -> float:
        return float(step >= self.disc_start)


def adaptive_weight(by_nll: Tensor, by_g_loss: Tensor) -> float:
    """The ratio of the gradients' norms, at most LARGEST_WEIGHT."""
    by_nll, by_g_loss = by_nll.asnumpy().astype(np.float64), by_g_loss.asnumpy().astype(np.float64)
    return float(np.clip(np.linalg.norm(by_nll) / (np.linalg.norm(by_g_loss) + 1e-4), 0.0, LARGEST_WEIGHT))


def _hinge(margin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.maximum(1.0 - margin, 0.0), -(margin < 1.0).astype(np.float64)


def _vanilla(margin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cross-entropy of a sigmoid."""
    return np.logaddexp(0.0, -margin), -np.exp(-np.logaddexp(0.0, margin))


PENALTIES: Mapping[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "hinge": _hinge,
    "vanilla": _vanilla,
}
"""Maps logits that should be large to their penalties and slopes; logits that should be small are negated
before."""


def _terms(
    w: Weights, video: Tensor, reconstruction: Tensor, moments: Tensor, *weights: float
) -> tuple[Tensor, Tensor]:
    """(errors (B, 3, T), KL terms (B, w))."""
    return clip_distances(video, reconstruction, *weights), gaussian_kl(moments)


def _images(w: Weights, video: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (B*T, C, H, W)."""
    return ops.reshape(ops.transpose(video, (0, 2, 1, 3, 4)), (-1, video.shape[1], *video.shape[3:]))


_TERMS, _IMAGES = Block(_terms), Block(_images)


def _perceptual_terms(
    perceptual: Perceptual, video: Tensor, reconstruction: Tensor, weight: float
) -> tuple[float, Tensor]:
    """(sum of the frames' distances, gradient of `weight` times that sum by the reconstruction)."""
    images, reconstructed = _IMAGES({}, video), _IMAGES({}, reconstruction)
    if isinstance(perceptual, LPIPS):
        # LPIPS is symmetric, and differentiates its first argument only.
        distances, tape = perceptual.forward_with_tape(reconstructed, images)
        _, (by_images,) = tape.gradients(
            [(distances, ops.full_like(distances, weight))], wanted=[reconstructed]
        )
    else:
        distances, by_images = ms.value_and_grad(lambda x: perceptual(images, x).sum())(reconstructed)
        by_images = by_images * weight
    _, (by_reconstruction,) = _IMAGES.gradient({}, (reconstruction,), by_images)
    return float(distances.asnumpy().sum(dtype=np.float64)), by_reconstruction
