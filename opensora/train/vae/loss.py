"""What training an autoencoder minimises: reconstruction, perceptual distance, KL, and a discriminator's opinion (arXiv:2012.09841)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from opensora.engine.block import Block
from opensora.models.causal_vae.model import CausalVAE, gaussian_kl
from opensora.models.discriminator import Discriminator
from opensora.models.lpips import LPIPS
from opensora.runtime import mindspore
from opensora.train.vae.distance import clip_distances

ms = mindspore()
ops = ms.ops

LARGEST_WEIGHT = 1e4
"""The adaptive weight, before disc_weight, is not taken larger than this."""

Perceptual = Callable[[Any, Any], Any]
"""(images, reconstructions), both (N, 3, H, W) in [-1, 1], to their distances (N, 1, 1, 1): an LPIPS, or any differentiable function."""


@dataclass(frozen=True)
class GeneratorTerms:
    """What the autoencoder's step needs: the loss, what to log, and the gradients of the loss."""

    loss: float
    log: dict[str, float]
    """total_loss, rec_loss, nll_loss, kl_loss, logvar and, with a discriminator, g_loss, d_weight, disc_factor."""
    by_reconstruction: Any  # (B, 3, T, H, W)
    by_moments: Any  # (B, 8, t, h, w)
    by_logvar: float


@dataclass(frozen=True)
class DiscriminatorTerms:
    """What the discriminator's step needs."""

    loss: float
    log: dict[str, float]
    """disc_loss, and the mean logits_real and logits_fake."""
    gradients: dict[str, Any]
    """By the discriminator's trainable weights."""


@dataclass
class VAELoss:
    """The objective of Open-Sora-Plan v1.1.0 and its gradients.

        loss = VAELoss(discriminator=Discriminator.from_weights(weights, dims=3), perceptual=LPIPS.from_weights(vgg), disc_start=2001)
        loss.generator(video, reconstruction, moments, step, last_layer)     # for the autoencoder
        loss.discriminate(video, reconstruction, step)                       # for the discriminator, after it

    Videos and reconstructions are (B, 3, T, H, W) in [-1, 1], moments (B, 8, t, h, w) are mean and log-variance as encoded, `step`
    counts the autoencoder's steps from 0. The distance of a pixel is the absolute error plus `perceptual_weight` times its frame's
    perceptual distance; its negative log-likelihood is that / exp(logvar) + logvar, summed over pixels and divided by videos and frames.
    KL is divided by videos.

    Both calls run the discriminator in training mode and update its running statistics, as the reference's loss does.
    `logvar` may be changed between calls; a run that learns it steps along `GeneratorTerms.by_logvar`.
    """

    kl_weight: float = 1e-6
    logvar: float = 0.0
    squared_weight: float = 0.0
    """Share of the squared error that is added to the absolute one (not in the reference)."""
    motion_weight: float = 0.0
    """Weight of the same distance between changes from frame to frame (not in the reference)."""
    motion_strength_weight: float = 0.0
    """Weight of the distance between the strengths of changes in each patch (not in the reference)."""
    perceptual: Perceptual | None = None
    perceptual_weight: float = 1.0
    discriminator: Discriminator | None = None
    disc_start: int = 0
    """First step at which the discriminator counts."""
    disc_weight: float = 0.5
    disc_loss: Literal["hinge", "vanilla"] = "hinge"
    all_reduce_mean: Callable[[Any], Any] | None = None
    """The mean of a gradient over all devices, each of which sees other clips: it lets them agree on the weight of the adversarial term."""

    def generator(
        self,
        video: Any,
        reconstruction: Any,
        moments: Any,
        step: int = 0,
        last_layer: Callable[[Any], Any] | None = None,
    ) -> GeneratorTerms:
        """The autoencoder's loss.

        last_layer: a function from a gradient by the reconstruction to the gradient by the weight of the layer that made it. The
        adversarial term is weighted by the ratio of two such gradients' norms (of the likelihood's over the term's own). Without
        the function the discriminator is not asked.
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

    def discriminate(self, video: Any, reconstruction: Any, step: int = 0) -> DiscriminatorTerms:
        """The discriminator's loss: half the mean penalty of the real patches' logits plus half that of the reconstructed ones'."""
        assert self.discriminator is not None
        factor = self._factor(step)
        total, means = 0.0, []
        gradients: dict[str, Any] = {}
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

    def _adversarial(self, reconstruction: Any) -> tuple[float, Any]:
        """Minus the mean logit of the reconstruction, and its gradient by the reconstruction."""
        assert self.discriminator is not None
        logits, statistics, tape = self.discriminator.forward_with_tape(reconstruction)
        self.discriminator.weights.update(statistics)
        by_logits = ms.Tensor(np.full(logits.shape, -1.0 / logits.size, np.float32))
        _, (by_reconstruction,) = tape.gradients([(logits, by_logits)], wanted=[reconstruction])
        return -float(logits.asnumpy().mean(dtype=np.float64)), by_reconstruction

    def _mean(self, gradient: Any) -> Any:
        return gradient if self.all_reduce_mean is None else self.all_reduce_mean(gradient)

    def _factor(self, step: int) -> float:
        return float(step >= self.disc_start)


def generator_step(
    vae: CausalVAE,
    loss: VAELoss,
    video: Any,
    step: int = 0,
    noise: Any = None,
    freeze_encoder: bool = False,
    disturbance: Any = None,
) -> tuple[GeneratorTerms, dict[str, Any], Any]:
    """One step of the autoencoder, without the update: (terms, gradients by the autoencoder's weights, reconstruction).

    The latents are the posterior's mode, or a sample where noise is given. The adaptive weight is that of `decoder.conv_out`. Before
    `loss.disc_start` the discriminator, which would have no effect, is not asked. freeze_encoder: gradients of the decoder's weights only.
    disturbance: added to the latents that are decoded, of their shape.
    """
    reconstruction, posterior, tape = vae.forward_with_tape(video, noise, freeze_encoder, disturbance)

    def last_layer(by_reconstruction: Any) -> Any:
        gradients = tape.peek(
            [(reconstruction, by_reconstruction)], blocks=2
        )  # the convolution, and the change of layout after it
        return next(value for name, value in gradients.items() if name.endswith("weight"))

    adversarial = loss.discriminator is not None and step >= loss.disc_start
    terms = loss.generator(
        video, reconstruction, posterior.moments, step, last_layer if adversarial else None
    )
    outward = [(reconstruction, terms.by_reconstruction)]
    if not freeze_encoder:
        outward.append((posterior.moments, terms.by_moments))
    gradients, _ = tape.gradients(outward)
    return terms, gradients, reconstruction


def adaptive_weight(by_nll: Any, by_g_loss: Any) -> float:
    """How many times the gradient of the adversarial term fits into that of the likelihood, at most LARGEST_WEIGHT."""
    by_nll, by_g_loss = by_nll.asnumpy().astype(np.float64), by_g_loss.asnumpy().astype(np.float64)
    return float(np.clip(np.linalg.norm(by_nll) / (np.linalg.norm(by_g_loss) + 1e-4), 0.0, LARGEST_WEIGHT))


def _hinge(margin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.maximum(1.0 - margin, 0.0), -(margin < 1.0).astype(np.float64)


def _vanilla(margin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cross-entropy of a sigmoid."""
    return np.logaddexp(0.0, -margin), -np.exp(-np.logaddexp(0.0, margin))


PENALTIES: Mapping[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "hinge": _hinge,
    "vanilla": _vanilla,
}
"""Penalty and slope of a logit that should be large; one that should be small comes with its sign turned."""


def _terms(w: Any, video: Any, reconstruction: Any, moments: Any, *weights: float) -> tuple[Any, Any]:
    """The distances of each frame's channels (B, 3, T), and the KL terms (B, w)."""
    return clip_distances(video, reconstruction, *weights), gaussian_kl(moments)


def _images(w: Any, video: Any) -> Any:
    """(B, C, T, H, W) -> (B*T, C, H, W)."""
    return ops.reshape(ops.transpose(video, (0, 2, 1, 3, 4)), (-1, video.shape[1], *video.shape[3:]))


_TERMS, _IMAGES = Block(_terms), Block(_images)


def _perceptual_terms(
    perceptual: Perceptual, video: Any, reconstruction: Any, weight: float
) -> tuple[float, Any]:
    """(the sum of the frames' distances, the gradient of `weight` times that sum by the reconstruction)."""
    images, reconstructed = _IMAGES({}, video), _IMAGES({}, reconstruction)
    if isinstance(perceptual, LPIPS):
        # The distance is symmetric; the second argument is the one that is taken as a constant.
        distances, tape = perceptual.forward_with_tape(reconstructed, images)
        _, (by_images,) = tape.gradients(
            [(distances, ops.full_like(distances, weight))], wanted=[reconstructed]
        )
    else:
        distances, by_images = ms.value_and_grad(lambda x: perceptual(images, x).sum())(reconstructed)
        by_images = by_images * weight
    _, (by_reconstruction,) = _IMAGES.gradient({}, (reconstruction,), by_images)
    return float(distances.asnumpy().sum(dtype=np.float64)), by_reconstruction
