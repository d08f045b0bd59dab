"""The interface of all samplers.

A sampler has float64 tables on the host; a step is a linear expression of arrays.
"""

from abc import ABC, abstractmethod

import numpy as np

from opensora.diffusion.schedule import BETA_END, BETA_START, TRAIN_STEPS, linear_betas
from opensora.nn import Tensor


class Sampler(ABC):
    """Turns noise into data with `len(timesteps)` evaluations of a network that predicts the noise:

        x = unit_noise * sampler.init_noise_sigma
        for i, t in enumerate(sampler.timesteps):
            eps = network(sampler.scale_model_input(x, i), t)
            x = sampler.step(eps, i, x, noise)

    Arrays may be MindSpore's or NumPy's. Multistep methods store earlier outputs in the object, and drop them
    at i == 0. Noise is an argument: a sampler draws no random numbers.
    """

    timesteps: np.ndarray  # (evaluations,) float64, descending, possibly fractional
    init_noise_sigma: float = 1.0

    def scale_model_input(self, x: Tensor, i: int) -> Tensor:
        """The network's input for evaluation i, same shape as x; pure noise is scaled to unit variance."""
        return x

    def needs_noise(self, i: int) -> bool:
        """True if step i needs `noise`, standard normal with the shape of x."""
        return False

    @abstractmethod
    def step(self, eps: Tensor, i: int, x: Tensor, noise: Tensor = None) -> Tensor:
        """The next x, given the noise prediction `eps` of evaluation i; all arrays have one shape.

        Raises ValueError if step i needs noise and `noise` is None.
        """


class SigmaSampler(Sampler):
    """Samplers of x = data + sigma * noise, with the data at unit scale (arXiv:2206.00364, section 2)."""

    sigmas: np.ndarray  # (evaluations,) float64: noise level of each evaluation

    def scale_model_input(self, x: Tensor, i: int) -> Tensor:
        return x * float(1.0 / np.sqrt(self.sigmas[i] ** 2 + 1.0))


def require_noise(noise: Tensor, i: int) -> Tensor:
    if noise is None:
        raise ValueError(
            f"step {i} of this sampler adds noise: pass noise=, standard normal with the shape of x"
        )
    return noise


def train_alphas_cumprod(start: float = BETA_START, end: float = BETA_END) -> np.ndarray:
    """Cumulative products of 1 - beta at the training timesteps: (1000,)."""
    return np.cumprod(1.0 - linear_betas(start, end))


def sigmas_of(alphas_cumprod: np.ndarray) -> np.ndarray:
    """Noise-to-data ratio, sqrt((1 - a) / a): same shape."""
    return np.asarray(np.sqrt((1.0 - alphas_cumprod) / alphas_cumprod))


def alpha_of(sigma: float) -> float:
    """Data scale of the variance-preserving process at the noise-to-data ratio sigma."""
    return float(1.0 / np.sqrt(1.0 + sigma * sigma))


def transfer(x: Tensor, eps: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """Move x between noise-to-data ratios; exact if eps is constant (DDIM, arXiv:2010.02502, equation 13)."""
    alpha, alpha_next = alpha_of(sigma), alpha_of(sigma_next)
    return x * (alpha_next / alpha) + eps * (alpha_next * (sigma_next - sigma))


def leading_timesteps(steps: int) -> np.ndarray:
    """Multiples of the stride 1000 // steps, descending to 0: (steps,)."""
    return np.arange(steps, dtype=np.float64)[::-1] * (TRAIN_STEPS // steps)


def even_timesteps(steps: int, upstream: bool) -> np.ndarray:
    """Evenly spaced from 999 to 0, fractional, both ends included: (steps,).

    A single step is at 999; the reference has it at 0.
    """
    if upstream and steps == 1:
        return np.zeros(1)
    return np.linspace(TRAIN_STEPS - 1, 0, steps)


def rounded_timesteps(steps: int) -> np.ndarray:
    """Evenly spaced from 999 to 0, rounded to integers, without the 0: (steps,)."""
    return np.linspace(0, TRAIN_STEPS - 1, steps + 1).round()[:0:-1]


def quadratic_timesteps(steps: int) -> np.ndarray:
    """Linearly shrinking strides from 999 towards 0, fractional, without the 0: (steps,).

    DDIM used this spacing for CIFAR-10 (arXiv:2010.02502, appendix D.2). With 20 steps of a second-order
    solver on mixtures of Gaussians, its error was smaller than with even, trailing, log-sigma and Karras
    spacing.
    """
    return (TRAIN_STEPS - 1) * np.linspace(1.0, 0.0, steps + 1)[:-1] ** 2


def sigmas_at(timesteps: np.ndarray, alphas_cumprod: np.ndarray) -> np.ndarray:
    """Noise levels at timesteps, fractional ones interpolated linearly: same shape."""
    return np.interp(timesteps, np.arange(len(alphas_cumprod)), sigmas_of(alphas_cumprod))
