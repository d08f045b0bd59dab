"""Gaussian diffusion with learned variances: the training loss, the distributions, and single sampling steps.

See DDPM (arXiv:2006.11239), Improved DDPM (arXiv:2102.09672) and DDIM (arXiv:2010.02502).
"""

import math
from collections.abc import Callable

import numpy as np

from opensora.diffusion.schedule import Schedule
from opensora.engine.block import as_array
from opensora.nn import F, Tensor
from opensora.runtime import mindspore

ms = mindspore()
ops = ms.ops

BITS = 1.0 / math.log(2.0)
SMALLEST_PROBABILITY = 1e-12
# The likelihood of the first step treats data as 8-bit levels in [-1, 1]. The bins beyond +-0.999 are open.
HALF_BIN = 1.0 / 255.0
OPEN_BIN = 0.999


def loss_terms(
    model_output: Tensor, x_start: Tensor, noise: Tensor, coefficients: Tensor, mask: Tensor = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, mse, vb), each (B,): loss = mse + vb.

    vb is the variational bound in bits per element; its gradient does not reach the noise prediction
    (arXiv:2102.09672, section 3.1). A pure function of `F`, for every engine.

    model_output: (B, 2C, T, H, W), the noise prediction and the logits of its variance.
    x_start, noise: (B, C, T, H, W).
    coefficients: (B, 5), from `GaussianDiffusion.loss_coefficients`.
    mask: (B, T, H, W), 1 = keep; the means are over kept elements.
    """
    channels = x_start.shape[1]
    output = model_output.astype(F.float32)
    error = output[:, :channels] - noise  # (B, C, T, H, W)
    fixed_error = F.stop_gradient(error)
    width, divergence_scale, deviations, half_bin, first = (
        F.reshape(coefficients[:, i], (-1, 1, 1, 1, 1)) for i in range(5)
    )
    # log of (smallest variance / predicted variance)
    gap = -0.5 * (output[:, channels:] + 1.0) * width
    divergence = 0.5 * (_exp_minus_tangent(gap) + divergence_scale * fixed_error * fixed_error * F.exp(gap))
    precision = F.exp(0.5 * gap)
    surprise = -_log_likelihood(x_start, deviations * fixed_error * precision, half_bin * precision)
    mse = _mean(error * error, mask)
    vb = _mean(F.where(first > 0.0, surprise, divergence), mask) * BITS
    return mse + vb, mse, vb


def _exp_minus_tangent(x: Tensor) -> Tensor:
    """exp(x) - 1 - x without cancellation near 0; x is the difference of two Gaussians' log variances."""
    small = F.clamp(x, -1.0, 1.0)
    series = 1.0 + small / 10.0
    for n in range(9, 2, -1):
        series = 1.0 + small * series / n
    return F.where(F.abs(x) < 1.0, 0.5 * small * small * series, F.exp(x) - 1.0 - x)


def _normal_cdf(x: Tensor) -> Tensor:
    """Tanh approximation of the normal distribution function, as a sigmoid: tanh is inexact on a CPU."""
    return F.sigmoid(1.5957691216057308 * x * (1.0 + 0.044715 * x * x))


def _log_likelihood(x_start: Tensor, offset: Tensor, half_bin: Tensor) -> Tensor:
    """Log probability of the bin around x_start.

    offset: the distance of x_start from the predicted mean, half_bin: half the width of a bin, in standard
    deviations.
    """
    # Computed on the lower tail, where the difference does not cancel.
    distance = -F.abs(offset)
    closed = _normal_cdf(distance + half_bin) - _normal_cdf(distance - half_bin)
    inside = F.where(x_start > OPEN_BIN, _normal_cdf(half_bin - offset), closed)
    probability = F.where(x_start < -OPEN_BIN, _normal_cdf(half_bin + offset), inside)
    return F.log(F.maximum(probability, SMALLEST_PROBABILITY))


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (B,): the mean over all elements, or over those kept by a mask (B, T, H, W)."""
    axes = (1, 2, 3, 4)
    if mask is None:
        return F.mean(values, axes)
    keep = F.expand_dims(mask.astype(F.float32), 1)  # (B, 1, T, H, W)
    return F.sum(values * keep, axes) / F.maximum(F.sum(keep, axes) * values.shape[1], 1.0)


class GaussianDiffusion(Schedule):
    """The diffusion process of training, full or respaced (see `space_timesteps`).

    t: (B,) integers below `num_timesteps`, NumPy or MindSpore. Latents are (B, C, T, H, W).
    model_output: (B, 2C, T, H, W), or a callable `network(x, training_timesteps)` that returns it.
    """

    def loss(
        self, model_output: Tensor, x_start: Tensor, t: Tensor, noise: Tensor, mask: Tensor = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`loss_terms` for the network's output at q_sample(x_start, t, noise)."""
        return loss_terms(model_output, x_start, noise, self.loss_coefficients(t), mask)

    def loss_coefficients(self, t: Tensor) -> Tensor:
        """The coefficients that `loss_terms` needs for the timesteps t: (B, 5) float32."""
        t = _host(t)
        smallest = np.exp(self.posterior_log_variance_clipped[t])
        # Predicted minus true posterior mean is this times (noise prediction - noise).
        mean_scale = self.posterior_mean_coef1[t] * self.sqrt_recipm1_alphas_cumprod[t]
        columns = (
            np.log(self.betas[t] / smallest),
            mean_scale**2 / smallest,
            self.sqrt_recipm1_alphas_cumprod[t] / np.sqrt(smallest),
            HALF_BIN / np.sqrt(smallest),
            t == 0,
        )
        return ms.Tensor(np.stack(columns, axis=1).astype(np.float32))

    def snr_weight(self, t: Tensor, gamma: float) -> np.ndarray:
        """Min-SNR weights of the samples' losses, (B,) float32 (arXiv:2303.09556, section 3.4).

        The squared error of the noise is that of the data times the signal-to-noise ratio; the weight clips
        this ratio at `gamma`. The mean over all timesteps is 1.
        """
        ratio = self.alphas_cumprod / (1.0 - self.alphas_cumprod)
        weight = np.minimum(ratio, gamma) / ratio
        return (weight / weight.mean())[_host(t)].astype(np.float32)

    def q_sample(self, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t, the data after t + 1 noising steps (arXiv:2006.11239, equation 4)."""
        return x_start * _per_sample(self.sqrt_alphas_cumprod, t, x_start) + noise * _per_sample(
            self.sqrt_one_minus_alphas_cumprod, t, x_start
        )

    def q_posterior(self, x_start: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(mean, variance, log_variance) of x_{t-1} given x_t and the data (arXiv:2006.11239, equation 7)."""
        mean = x_start * _per_sample(self.posterior_mean_coef1, t, x_t) + x_t * _per_sample(
            self.posterior_mean_coef2, t, x_t
        )
        zeros = ops.zeros_like(x_t)
        return (
            mean,
            zeros + _per_sample(self.posterior_variance, t, x_t),
            zeros + _per_sample(self.posterior_log_variance_clipped, t, x_t),
        )

    def p_mean_variance(
        self, model_output: Tensor, x: Tensor, t: Tensor, clip_denoised: bool = True
    ) -> dict[str, Tensor]:
        """The predicted distribution of x_{t-1}: mean, variance, log_variance and pred_xstart, all of x's
        shape.

        The log variance is interpolated between the posterior's and log beta (arXiv:2102.09672, equation 15).
        """
        eps, fraction = self._split(model_output, x, t)
        pred_xstart = x * _per_sample(self.sqrt_recip_alphas_cumprod, t, x) - eps * _per_sample(
            self.sqrt_recipm1_alphas_cumprod, t, x
        )
        if clip_denoised:
            pred_xstart = pred_xstart.clip(-1.0, 1.0)
        smallest = self.posterior_log_variance_clipped
        above = fraction * _per_sample(np.log(self.betas) - smallest, t, x)
        return {
            "mean": self.q_posterior(pred_xstart, x, t)[0],
            "variance": ops.exp(above) * _per_sample(np.exp(smallest), t, x),
            "log_variance": above + _per_sample(smallest, t, x),
            "pred_xstart": pred_xstart,
        }

    def p_sample(
        self, model_output: Tensor, x: Tensor, t: Tensor, clip_denoised: bool = True, *, noise: Tensor
    ) -> dict[str, Tensor]:
        """One ancestral step (arXiv:2006.11239, algorithm 2): `sample`, which is x_{t-1}, and `pred_xstart`.

        At t = 0 no noise is added.
        """
        out = self.p_mean_variance(model_output, x, t, clip_denoised)
        moved = _per_sample(np.arange(self.num_timesteps) > 0, t, x)
        return {
            "sample": out["mean"] + ops.sqrt(out["variance"]) * noise * moved,
            "pred_xstart": out["pred_xstart"],
        }

    def ddim_sample(
        self,
        model_output: Tensor,
        x: Tensor,
        t: Tensor,
        clip_denoised: bool = True,
        eta: float = 0.0,
        noise: Tensor = None,
    ) -> dict[str, Tensor]:
        """One DDIM step (arXiv:2010.02502, equations 12 and 16): `sample` and `pred_xstart`.

        eta: 0 is deterministic, 1 has the variance of ancestral sampling.
        Raises ValueError if eta is not 0 and noise is None.
        """
        if eta != 0.0 and noise is None:
            raise ValueError(
                f"eta {eta} adds noise: pass noise=, standard normal with the shape of x, or eta=0"
            )
        pred_xstart = self.p_mean_variance(model_output, x, t, clip_denoised)["pred_xstart"]
        # The noise that goes with the clipped prediction.
        eps = (x * _per_sample(self.sqrt_recip_alphas_cumprod, t, x) - pred_xstart) / _per_sample(
            self.sqrt_recipm1_alphas_cumprod, t, x
        )
        # In float32, as in the reference: 1 - 0.9999 has four digits in it, which shows at t = 1 after
        # clipping.
        alphas_cumprod = self.alphas_cumprod.astype(np.float32)
        alphas_cumprod_prev = self.alphas_cumprod_prev.astype(np.float32)
        posterior = np.sqrt((1 - alphas_cumprod_prev) / (1 - alphas_cumprod))
        deviation = np.float32(eta) * posterior * np.sqrt(1 - alphas_cumprod / alphas_cumprod_prev)
        direction = np.sqrt(1 - alphas_cumprod_prev - deviation**2)
        sample = pred_xstart * _per_sample(np.sqrt(self.alphas_cumprod_prev), t, x) + eps * _per_sample(
            direction, t, x
        )
        if eta != 0.0:
            # The deviation is 0 at t = 0, so the last step adds no noise.
            sample = sample + noise * _per_sample(deviation, t, x)
        return {"sample": sample, "pred_xstart": pred_xstart}

    def prior_bpd(self, x_start: Tensor) -> Tensor:
        """Divergence of x_T from a standard normal, in bits per element: (B,)."""
        log_variance = np.float32(self.log_one_minus_alphas_cumprod[-1])
        # In float32, as in the reference: the part of the variance, 8e-10, rounds to zero.
        constant = float(np.exp(log_variance) + (np.float32(-1.0) - log_variance))
        mean = x_start * float(self.sqrt_alphas_cumprod[-1])
        return 0.5 * BITS * (mean * mean + constant).mean(axis=(1, 2, 3, 4))

    def _split(
        self, model_output: Tensor | Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Noise prediction, and where the log variance is between its bounds (0 to 1): each of x's shape."""
        if callable(model_output):
            model_output = model_output(x, ms.Tensor(self.timestep_map[_host(t)]))
        channels = x.shape[1]
        output = model_output.astype(ms.float32)
        return output[:, :channels], 0.5 * (output[:, channels:] + 1.0)


def _host(t: Tensor) -> np.ndarray:
    return np.asarray(as_array(t))


def _per_sample(table: np.ndarray, t: Tensor, x: Tensor) -> Tensor:
    """The table's entry for each sample, to multiply x with: (B, 1, 1, 1, 1) float32."""
    return ms.Tensor(table[_host(t)].astype(np.float32).reshape((-1,) + (1,) * (x.ndim - 1)))
