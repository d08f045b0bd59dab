"""An autoencoder whose latents have the mean and deviation that the diffusion expects, made of one that reconstructs the same."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from opensora.demo_data.render import DemoClips, Renderer
from opensora.media.pixels import to_pixels
from opensora.models.causal_vae.config import LATENT_SCALE
from opensora.models.causal_vae.model import CausalVAE, CausalVAEConfig
from opensora.runtime import mindspore

ms = mindspore()

CLIPS_MEASURED = 128


def normalise_on(
    demo_data: str,
) -> Callable[[dict[str, Any], Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """A function of an autoencoder's configuration and weights that gives the weights with normal latents on this data set."""

    def change(config: dict[str, Any], weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        vae = CausalVAE(
            CausalVAEConfig.from_dict(config), {name: ms.Tensor(weights[name]) for name in weights}
        )
        normalise_latents(vae, *measure_latents(vae, demo_data))
        return {name: value.asnumpy() for name, value in vae.weights.items()}

    return change


def measure_latents(vae: CausalVAE, demo_data: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each latent channel, (C,), over training clips of the demo data set."""
    clips = DemoClips(Renderer(demo_data), seed=1)
    latents = np.concatenate(
        [vae.encode(ms.Tensor(to_pixels(clips[i].video[None]))).mean.asnumpy() for i in range(CLIPS_MEASURED)]
    )
    return latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))


def normalise_latents(vae: CausalVAE, mean: np.ndarray, deviation: np.ndarray) -> None:
    """Rescale the latents, in place and without a change of what is reconstructed: channel means become 0, deviations 1/0.18215.

    Both 1x1x1 convolutions at the latents take the change up, so the model keeps the release's layout and constant scale.
    """
    stretch = (1.0 / LATENT_SCALE / deviation).astype(np.float32)
    weights = vae.weights
    kernel, bias = (
        weights["quant_conv.conv.weight"].asnumpy().copy(),
        weights["quant_conv.conv.bias"].asnumpy().copy(),
    )
    channels = len(stretch)
    kernel[:channels] *= stretch[:, None, None, None, None]
    bias[:channels] = (bias[:channels] - mean) * stretch
    bias[channels:] += 2 * np.log(stretch)
    weights["quant_conv.conv.weight"], weights["quant_conv.conv.bias"] = ms.Tensor(kernel), ms.Tensor(bias)
    kernel, bias = (
        weights["post_quant_conv.conv.weight"].asnumpy().copy(),
        weights["post_quant_conv.conv.bias"].asnumpy(),
    )
    bias = bias + kernel[:, :, 0, 0, 0] @ mean.astype(np.float32)
    kernel /= stretch[None, :, None, None, None]
    weights["post_quant_conv.conv.weight"], weights["post_quant_conv.conv.bias"] = (
        ms.Tensor(kernel),
        ms.Tensor(bias),
    )
