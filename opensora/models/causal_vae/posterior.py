"""The Gaussian that the encoder of a CausalVAE gives, on tensors of any engine."""

from dataclasses import dataclass
from types import ModuleType

import numpy as np

from opensora.nn import F, Tensor, forms_numpy
from opensora.nn.functional import Functions


@dataclass(frozen=True)
class Posterior:
    """The Gaussian over latents. `moments` (B, 2*C, T, H, W): the network's mean, then its log-variance."""

    moments: Tensor

    @property
    def mean(self) -> Tensor:
        return _functions(self.moments).chunk(self.moments, 2, 1)[0]

    @property
    def logvar(self) -> Tensor:
        return _mean_logvar(_functions(self.moments), self.moments)[1]

    def mode(self) -> Tensor:
        return self.mean

    def sample(self, noise: Tensor) -> Tensor:
        """mean + std * noise; noise of unit variance, (B, C, T, H, W)."""
        return sample(_functions(self.moments), self.moments, noise)

    def kl(self) -> Tensor:
        """KL divergence to the unit Gaussian: (B, W).

        As in the reference, it is summed over channels, time and height.
        """
        return _kl(_functions(self.moments), self.moments)


def gaussian_kl(moments: Tensor) -> Tensor:
    """`Posterior.kl` of moments (B, 2*C, T, H, W), inside a block: (B, W)."""
    return _kl(F, moments)


def _kl(functions: Functions | ModuleType, moments: Tensor) -> Tensor:
    mean, logvar = _mean_logvar(functions, moments)
    return 0.5 * functions.sum(mean * mean + functions.exp(logvar) - 1.0 - logvar, (1, 2, 3))


def sample(functions: Functions | ModuleType, moments: Tensor, noise: Tensor) -> Tensor:
    """`Posterior.sample` of moments, with `F` or another set of functions."""
    mean, logvar = _mean_logvar(functions, moments)
    return mean + functions.exp(0.5 * logvar) * noise


def _mean_logvar(functions: Functions | ModuleType, moments: Tensor) -> tuple[Tensor, Tensor]:
    mean, logvar = functions.chunk(moments, 2, 1)
    return mean, functions.clamp(logvar, -30.0, 20.0)


def _functions(x: Tensor) -> Functions | ModuleType:
    return forms_numpy if isinstance(x, np.ndarray) else F
