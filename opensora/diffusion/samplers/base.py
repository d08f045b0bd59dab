"""What every sampler is: host-side tables in float64 and one small linear expression of arrays per step."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from opensora.diffusion.schedule import BETA_END, BETA_START, TRAIN_STEPS, linear_betas


class Sampler(ABC):
    """Turns noise into data with `len(timesteps)` evaluations of a network that predicts the noise.

    The loop: `x = unit_noise * init_noise_sigma`; for each i, `eps = network(scale_model_input(x, i), timesteps[i])` and
    `x = step(eps, i, x, noise)`. Arrays may be of any library with arithmetic (MindSpore, NumPy). Earlier outputs that a
    method needs are kept in the object and dropped at i == 0. Randomness is passed in, never drawn here.
    """

    timesteps: np.ndarray  # (evaluations,) float64, descending, possibly fractional
    init_noise_sigma: float = 1.0

    def scale_model_input(self, x: Any, i: int) -> Any:
        """The network's input for evaluation i, of unit variance on noise: same shape as x."""
        return x

    def needs_noise(self, i: int) -> bool:
        """Whether step i reads `noise` (standard normal, the shape of x)."""
        return False

    @abstractmethod
    def step(self, eps: Any, i: int, x: Any, noise: Any = None) -> Any:
        """The next x after the network's noise prediction `eps` for evaluation i, all of one shape.

        Raises ValueError when step i needs noise and got none.
        """


class SigmaSampler(Sampler):
    """Samplers that keep data at unit scale and add noise of standard deviation sigma (arXiv:2206.00364, section 2)."""

    sigmas: np.ndarray  # (evaluations,) float64: the noise level at which evaluation i is made

    def scale_model_input(self, x: Any, i: int) -> Any:
        return x * float(1.0 / np.sqrt(self.sigmas[i] ** 2 + 1.0))


def require_noise(noise: Any, i: int) -> Any:
    if noise is None:
        raise ValueError(
            f"step {i} of this sampler adds noise: pass noise=, standard normal and of the shape of x"
        )
    return noise


def train_alphas_cumprod(start: float = BETA_START, end: float = BETA_END) -> np.ndarray:
    """Cumulative products of 1 - beta at the training timesteps: (1000,)."""
    return np.cumprod(1.0 - linear_betas(start, end))


def sigmas_of(alphas_cumprod: Any) -> Any:
    """Noise standard deviation over data scale: sqrt((1 - a) / a)."""
    return np.sqrt((1.0 - alphas_cumprod) / alphas_cumprod)


def alpha_of(sigma: float) -> float:
    """Data scale of the variance-preserving process whose noise-to-data ratio is sigma."""
    return float(1.0 / np.sqrt(1.0 + sigma * sigma))


def transfer(x: Any, eps: Any, sigma: float, sigma_next: float) -> Any:
    """Exact move of a variance-preserving x between noise-to-data ratios if eps were constant (DDIM, arXiv:2010.02502, equation 13)."""
    alpha, alpha_next = alpha_of(sigma), alpha_of(sigma_next)
    return x * (alpha_next / alpha) + eps * (alpha_next * (sigma_next - sigma))


def leading_timesteps(steps: int) -> np.ndarray:
    """Multiples of a whole stride, descending to 0; the largest ones are left out when the stride does not divide: (steps,)."""
    return np.arange(steps, dtype=np.float64)[::-1] * (TRAIN_STEPS // steps)


def even_timesteps(steps: int, upstream: bool) -> np.ndarray:
    """Evenly spaced from 999 to 0, fractional, both ends included: (steps,).

    A single step is at 999; the reference has it at 0.
    """
    if upstream and steps == 1:
        return np.zeros(1)
    return np.linspace(TRAIN_STEPS - 1, 0, steps)


def rounded_timesteps(steps: int) -> np.ndarray:
    """Evenly spaced from 999, rounded to whole timesteps, 0 left out: (steps,)."""
    return np.linspace(0, TRAIN_STEPS - 1, steps + 1).round()[:0:-1]


def quadratic_timesteps(steps: int) -> np.ndarray:
    """From 999 with strides that shrink linearly towards 0, fractional, 0 left out: (steps,).

    DDIM (arXiv:2010.02502, appendix D.2) spaces CIFAR-10 so. At 20 steps of a second-order solver on mixtures of Gaussians
    its error was the smallest of even, trailing, quadratic, even in log sigma, and Karras spacings.
    """
    return (TRAIN_STEPS - 1) * np.linspace(1.0, 0.0, steps + 1)[:-1] ** 2


def sigmas_at(timesteps: np.ndarray, alphas_cumprod: np.ndarray) -> np.ndarray:
    """Noise levels at possibly fractional timesteps, linear between the training ones: same shape."""
    return np.interp(timesteps, np.arange(len(alphas_cumprod)), sigmas_of(alphas_cumprod))
