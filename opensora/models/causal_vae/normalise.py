"""Give an autoencoder's latents zero mean and the deviation that the diffusion expects."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from opensora.models.causal_vae.config import LATENT_SCALE, CausalVAEConfig
from opensora.models.causal_vae.model import CausalVAE
from opensora.runtime import mindspore

ms = mindspore()


def normalised_weights(
    config: dict[str, Any], weights: Mapping[str, np.ndarray], videos: Iterable[np.ndarray]
) -> dict[str, np.ndarray]:
    """The weights with normal latents on these videos, (B, 3, T, H, W) in [-1, 1].

    config: the content of config.json.
    """
    tensors = {name: ms.Tensor(weights[name]) for name in weights}
    vae = CausalVAE(CausalVAEConfig.from_dict(config), tensors)
    normalise_latents(vae, *measure_latents(vae, videos))
    return {name: value.asnumpy() for name, value in vae.weights.items()}


def measure_latents(vae: CausalVAE, videos: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each latent channel, (C,), over videos (B, 3, T, H, W)."""
    latents = np.concatenate([vae.encode(ms.Tensor(video)).mean.asnumpy() for video in videos])
    return latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))


def normalise_latents(vae: CausalVAE, mean: np.ndarray, deviation: np.ndarray) -> None:
    """Change the weights so that each channel's mean becomes 0 and its deviation 1 / LATENT_SCALE.

    mean, deviation: those of each latent channel now, (C,). The 1x1x1 convolutions before and after the
    latents absorb the change, so that reconstructions stay the same and the model keeps the release's layout
    and scale.
    """
    stretch = (1.0 / LATENT_SCALE / deviation).astype(np.float32)
    channels = len(stretch)
    kernel, bias = _convolution(vae, "quant_conv")  # (2C, C, 1, 1, 1): means, then log-variances
    kernel[:channels] *= stretch[:, None, None, None, None]
    bias[:channels] = (bias[:channels] - mean) * stretch
    bias[channels:] += 2 * np.log(stretch)
    _set_convolution(vae, "quant_conv", kernel, bias)
    kernel, bias = _convolution(vae, "post_quant_conv")
    bias = bias + kernel[:, :, 0, 0, 0] @ mean.astype(np.float32)
    kernel /= stretch[None, :, None, None, None]
    _set_convolution(vae, "post_quant_conv", kernel, bias)


def _convolution(vae: CausalVAE, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Copies of its kernel and bias."""
    kernel, bias = (vae.weights[f"{name}.conv.{part}"].asnumpy().copy() for part in ("weight", "bias"))
    return kernel, bias


def _set_convolution(vae: CausalVAE, name: str, kernel: np.ndarray, bias: np.ndarray) -> None:
    assert isinstance(vae.weights, dict)
    vae.weights |= {f"{name}.conv.weight": ms.Tensor(kernel), f"{name}.conv.bias": ms.Tensor(bias)}
