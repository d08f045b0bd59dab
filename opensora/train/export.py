"""From run folders to a model folder in the release's layout, which `--model_path` and the PyTorch original load."""

from pathlib import Path
from typing import Any

import numpy as np

from opensora.data.demo import DemoClips, Renderer
from opensora.data.latents import LATENT_SCALE
from opensora.models.causal_vae import CausalVAE, CausalVAEConfig
from opensora.models.latte import LatteConfig, LatteT2V
from opensora.models.t5 import T5Config, T5Encoder
from opensora.runtime import mindspore
from opensora.train.checkpoint import latest_checkpoint, load_checkpoint
from opensora.train.options import ExportOptions
from opensora.train.vae import to_pixels
from opensora.weights import WeightsError, find_model, load_config

ms = mindspore()

CLIPS_MEASURED = 128


def export(options: ExportOptions) -> None:
    """Run `opensora export`: write the parts whose runs are named into the model folder. Raises WeightsError."""
    folder = find_model(options.model_path, options.version)
    if options.vae_run is not None:
        vae = CausalVAE(CausalVAEConfig.from_dict(load_config(folder.vae)), _tensors(_groups(options.vae_run)["ema"]))
        if options.demo_data is not None:
            normalise_latents(vae, *measure_latents(vae, options.demo_data))
        vae.save_pretrained(folder.vae, options.dtype)
    if options.run is not None:
        groups, text = _groups(options.run), folder.text_encoder
        config = LatteConfig.from_dict(load_config(folder.transformer))
        LatteT2V(config, _tensors(groups["ema"])).save_pretrained(folder.transformer, options.dtype)
        if text is not None:
            T5Encoder(T5Config.from_dict(load_config(text)), _tensors(groups["text_encoder_ema"])).save_pretrained(text, options.dtype)


def measure_latents(vae: CausalVAE, demo_data: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each latent channel, (C,), over training clips of the demo data set."""
    clips = DemoClips(Renderer(demo_data), seed=1)
    latents = np.concatenate([vae.encode(ms.Tensor(to_pixels(clips[i].video[None]))).mean.asnumpy() for i in range(CLIPS_MEASURED)])
    return latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))


def normalise_latents(vae: CausalVAE, mean: np.ndarray, deviation: np.ndarray) -> None:
    """Rescale the latents, in place and without a change of what is reconstructed: channel means become 0, deviations 1/0.18215.

    Both 1x1x1 convolutions at the latents take the change up, so the model keeps the release's layout and constant scale.
    """
    stretch = (1.0 / LATENT_SCALE / deviation).astype(np.float32)
    weights = vae.weights
    kernel, bias = weights["quant_conv.conv.weight"].asnumpy().copy(), weights["quant_conv.conv.bias"].asnumpy().copy()
    channels = len(stretch)
    kernel[:channels] *= stretch[:, None, None, None, None]
    bias[:channels] = (bias[:channels] - mean) * stretch
    bias[channels:] += 2 * np.log(stretch)
    weights["quant_conv.conv.weight"], weights["quant_conv.conv.bias"] = ms.Tensor(kernel), ms.Tensor(bias)
    kernel, bias = weights["post_quant_conv.conv.weight"].asnumpy().copy(), weights["post_quant_conv.conv.bias"].asnumpy()
    bias = bias + kernel[:, :, 0, 0, 0] @ mean.astype(np.float32)
    kernel /= stretch[None, :, None, None, None]
    weights["post_quant_conv.conv.weight"], weights["post_quant_conv.conv.bias"] = ms.Tensor(kernel), ms.Tensor(bias)


def _groups(run: str) -> dict[str, dict[str, np.ndarray]]:
    checkpoint = latest_checkpoint(Path(run))
    if checkpoint is None:
        raise WeightsError(f"run folder {run} has no complete checkpoint: train until it has one, or check the path")
    return load_checkpoint(checkpoint)[0]


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: ms.Tensor(value) for name, value in arrays.items()}
