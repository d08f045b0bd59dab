"""The training loss, and the distributions and single sampling steps of Gaussian diffusion with a learned range of variances.

Formulas: DDPM (arXiv:2006.11239), Improved DDPM (arXiv:2102.09672), DDIM (arXiv:2010.02502).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from opensora.diffusion.schedule import Schedule
from opensora.nn.activations import log
from opensora.runtime import mindspore

ms = mindspore()
ops = ms.ops

BITS = 1.0 / math.log(2.0)
SMALLEST_PROBABILITY = 1e-12
# Data of the first step's likelihood are taken as 8-bit levels in [-1, 1]; outside +-0.999 lie the two open bins.
HALF_BIN = 1.0 / 255.0
OPEN_BIN = 0.999


def loss_terms(
    model_output: Any, x_start: Any, noise: Any, coefficients: Any, mask: Any = None
) -> tuple[Any, Any, Any]:
    """(loss, mse, vb), each (B,): loss = mse + vb, with vb in bits per element and detached from the noise prediction.

    `model_output` (B, 2C, T, H, W) holds the noise prediction and the variance's place between its bounds; `x_start` and `noise`
    are (B, C, T, H, W); `coefficients` (B, 5) comes from `GaussianDiffusion.loss_coefficients`; `mask` (B, T, H, W), 1 = keep: the
    means are then over the kept elements. A pure function, for use under `ms.jit` and `ms.value_and_grad`.
    """
    channels = x_start.shape[1]
    output = model_output.astype(ms.float32)
    error = output[:, :channels] - noise  # (B, C, T, H, W)
    fixed_error = ops.stop_gradient(error)
    width, divergence_scale, deviations, half_bin, first = (
        coefficients[:, i].reshape((-1, 1, 1, 1, 1)) for i in range(5)
    )
    # log of (smallest variance / predicted variance)
    gap = -0.5 * (output[:, channels:] + 1.0) * width
    divergence = 0.5 * (_exp_minus_tangent(gap) + divergence_scale * fixed_error * fixed_error * ops.exp(gap))
    precision = ops.exp(0.5 * gap)
    surprise = -_log_likelihood(x_start, deviations * fixed_error * precision, half_bin * precision)
    mse = _mean(error * error, mask)
    vb = _mean(ops.where(first > 0.0, surprise, divergence), mask) * BITS
    return mse + vb, mse, vb


def _exp_minus_tangent(x: Any) -> Any:
    """exp(x) - 1 - x, without cancellation near 0: it is what a wrong variance adds to the divergence of two Gaussians."""
    small = ops.clamp(x, -1.0, 1.0)
    series = ops.ones_like(x)
    for n in range(10, 2, -1):
        series = 1.0 + small * series / n
    return ops.where(ops.abs(x) < 1.0, 0.5 * small * small * series, ops.exp(x) - 1.0 - x)


def _normal_cdf(x: Any) -> Any:
    """The reference's tanh approximation of the standard normal distribution function, as a sigmoid (`ops.tanh` is inexact)."""
    return ops.sigmoid(1.5957691216057308 * x * (1.0 + 0.044715 * x * x))


def _log_likelihood(x_start: Any, offset: Any, half_bin: Any) -> Any:
    """Log probability of the bin around x_start; `offset` is its distance from the predicted mean, both in standard deviations."""
    # Taken on the lower tail, where the difference keeps its digits.
    distance = -ops.abs(offset)
    closed = _normal_cdf(distance + half_bin) - _normal_cdf(distance - half_bin)
    inside = ops.where(x_start > OPEN_BIN, _normal_cdf(half_bin - offset), closed)
    probability = ops.where(x_start < -OPEN_BIN, _normal_cdf(half_bin + offset), inside)
    return log(ops.maximum(probability, SMALLEST_PROBABILITY))


def _mean(values: Any, mask: Any) -> Any:
    """(B, C, T, H, W) -> (B,): the mean over all elements, or over those that the mask (B, T, H, W) keeps."""
    if mask is None:
        return values.mean(axis=(1, 2, 3, 4))
    keep = mask.astype(ms.float32).expand_dims(1)  # (B, 1, T, H, W)
    return (values * keep).sum(axis=(1, 2, 3, 4)) / ops.maximum(
        keep.sum(axis=(1, 2, 3, 4)) * values.shape[1], 1.0
    )


class GaussianDiffusion(Schedule):
    """The diffusion process that the model is trained with, whole or respaced (see `space_timesteps`).

    Timesteps `t` (B,) are integers below `num_timesteps`, NumPy or MindSpore; latents are (B, C, T, H, W). Where a method takes
    `model_output` (B, 2C, T, H, W), a callable `network(x, timesteps)` is also accepted and is given the training's timesteps.
    """

    def loss(
        self, model_output: Any, x_start: Any, t: Any, noise: Any, mask: Any = None
    ) -> tuple[Any, Any, Any]:
        """(loss, mse, vb), each (B,), as `loss_terms`; `model_output` is the network's output for q_sample(x_start, t, noise)."""
        return loss_terms(model_output, x_start, noise, self.loss_coefficients(t), mask)

    def loss_coefficients(self, t: Any) -> Any:
        """What `loss_terms` must know of the timesteps: (B, 5) float32."""
        t = _host(t)
        smallest = np.exp(self.posterior_log_variance_clipped[t])
        # Predicted and true posterior means differ by this times (noise prediction - noise).
        mean_scale = self.posterior_mean_coef1[t] * self.sqrt_recipm1_alphas_cumprod[t]
        columns = (
            np.log(self.betas[t] / smallest),
            mean_scale**2 / smallest,
            self.sqrt_recipm1_alphas_cumprod[t] / np.sqrt(smallest),
            HALF_BIN / np.sqrt(smallest),
            t == 0,
        )
        return ms.Tensor(np.stack(columns, axis=1).astype(np.float32))

    def snr_weight(self, t: Any, gamma: float) -> np.ndarray:
        """What each sample's loss counts, (B,) float32, of mean 1 over all timesteps: the min-SNR weights (arXiv:2303.09556, section 3.4).

        The squared error of the noise is the data's times the signal-to-noise ratio; beyond `gamma` the ratio counts no more.
        """
        ratio = self.alphas_cumprod / (1.0 - self.alphas_cumprod)
        weight = np.minimum(ratio, gamma) / ratio
        return (weight / weight.mean())[_host(t)].astype(np.float32)

    def q_sample(self, x_start: Any, t: Any, noise: Any) -> Any:
        """x_t: the data after t + 1 noising steps (arXiv:2006.11239, equation 4)."""
        return x_start * _spread(self.sqrt_alphas_cumprod, t, x_start) + noise * _spread(
            self.sqrt_one_minus_alphas_cumprod, t, x_start
        )

    def q_posterior(self, x_start: Any, x_t: Any, t: Any) -> tuple[Any, Any, Any]:
        """(mean, variance, log_variance) of x_{t-1} given x_t and the data, all of x_t's shape (arXiv:2006.11239, equation 7)."""
        mean = x_start * _spread(self.posterior_mean_coef1, t, x_t) + x_t * _spread(
            self.posterior_mean_coef2, t, x_t
        )
        zeros = ops.zeros_like(x_t)
        return (
            mean,
            zeros + _spread(self.posterior_variance, t, x_t),
            zeros + _spread(self.posterior_log_variance_clipped, t, x_t),
        )

    def p_mean_variance(
        self, model_output: Any, x: Any, t: Any, clip_denoised: bool = True
    ) -> dict[str, Any]:
        """The network's distribution of x_{t-1}: mean, variance, log_variance and pred_xstart, all of x's shape.

        The variance lies between the posterior's and beta in the logarithm (arXiv:2102.09672, equation 15).
        """
        eps, place = self._split(model_output, x, t)
        pred_xstart = x * _spread(self.sqrt_recip_alphas_cumprod, t, x) - eps * _spread(
            self.sqrt_recipm1_alphas_cumprod, t, x
        )
        if clip_denoised:
            pred_xstart = pred_xstart.clip(-1.0, 1.0)
        smallest = self.posterior_log_variance_clipped
        above = place * _spread(np.log(self.betas) - smallest, t, x)
        return {
            "mean": self.q_posterior(pred_xstart, x, t)[0],
            "variance": ops.exp(above) * _spread(np.exp(smallest), t, x),
            "log_variance": above + _spread(smallest, t, x),
            "pred_xstart": pred_xstart,
        }

    def p_sample(
        self, model_output: Any, x: Any, t: Any, clip_denoised: bool = True, *, noise: Any
    ) -> dict[str, Any]:
        """One ancestral step (arXiv:2006.11239, algorithm 2): `sample` (x_{t-1}) and `pred_xstart`. At t = 0 the noise is not used."""
        out = self.p_mean_variance(model_output, x, t, clip_denoised)
        moved = _spread(np.arange(self.num_timesteps) > 0, t, x)
        return {
            "sample": out["mean"] + ops.sqrt(out["variance"]) * noise * moved,
            "pred_xstart": out["pred_xstart"],
        }

    def ddim_sample(
        self,
        model_output: Any,
        x: Any,
        t: Any,
        clip_denoised: bool = True,
        eta: float = 0.0,
        noise: Any = None,
    ) -> dict[str, Any]:
        """One DDIM step (arXiv:2010.02502, equations 12 and 16): `sample` and `pred_xstart`.

        `eta` 0 is deterministic, 1 as random as ancestral sampling. Raises ValueError when eta asks for noise and there is none.
        """
        if eta != 0.0 and noise is None:
            raise ValueError(
                f"eta {eta} adds noise: pass noise=, standard normal and of the shape of x, or eta=0"
            )
        pred_xstart = self.p_mean_variance(model_output, x, t, clip_denoised)["pred_xstart"]
        # The noise that belongs to the clipped prediction.
        eps = (x * _spread(self.sqrt_recip_alphas_cumprod, t, x) - pred_xstart) / _spread(
            self.sqrt_recipm1_alphas_cumprod, t, x
        )
        # Float32 from here on: 1 - 0.9999 keeps four digits in it, and a clipped prediction makes the difference visible at t = 1.
        kept, kept_before = (
            self.alphas_cumprod.astype(np.float32),
            self.alphas_cumprod_prev.astype(np.float32),
        )
        deviation = (
            np.float32(eta) * np.sqrt((1 - kept_before) / (1 - kept)) * np.sqrt(1 - kept / kept_before)
        )
        direction = np.sqrt(1 - kept_before - deviation**2)
        sample = pred_xstart * _spread(np.sqrt(self.alphas_cumprod_prev), t, x) + eps * _spread(
            direction, t, x
        )
        if eta != 0.0:
            # The deviation is 0 at t = 0: the last step adds none.
            sample = sample + noise * _spread(deviation, t, x)
        return {"sample": sample, "pred_xstart": pred_xstart}

    def prior_bpd(self, x_start: Any) -> Any:
        """Divergence of the fully noised data from a standard normal, in bits per element: (B,)."""
        log_variance = np.float32(self.log_one_minus_alphas_cumprod[-1])
        # In float32, as the reference: the variance's own part, 8e-10, vanishes there.
        constant = float(np.exp(log_variance) + (np.float32(-1.0) - log_variance))
        mean = x_start * float(self.sqrt_alphas_cumprod[-1])
        return 0.5 * BITS * (mean * mean + constant).mean(axis=(1, 2, 3, 4))

    def _split(self, model_output: Any | Callable[[Any, Any], Any], x: Any, t: Any) -> tuple[Any, Any]:
        """Noise prediction, and the log variance's place between its bounds (0 lower, 1 upper): each of x's shape."""
        if callable(model_output):
            model_output = model_output(x, ms.Tensor(self.timestep_map[_host(t)]))
        channels = x.shape[1]
        output = model_output.astype(ms.float32)
        return output[:, :channels], 0.5 * (output[:, channels:] + 1.0)


def _host(t: Any) -> np.ndarray:
    return np.asarray(t.asnumpy() if isinstance(t, ms.Tensor) else t)


def _spread(table: np.ndarray, t: Any, x: Any) -> Any:
    """Each sample's table entry, to multiply x with: (B, 1, 1, 1, 1) float32."""
    return ms.Tensor(table[_host(t)].astype(np.float32).reshape((-1,) + (1,) * (x.ndim - 1)))
