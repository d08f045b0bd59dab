"""How a model samples: defaults of its folder, completed and checked before MindSpore is imported."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from opensora.diffusion import make_sampler
from opensora.weights import ModelFolder, WeightsError, load_config

RELEASE_PRESET = Path(__file__).parent.parent / "presets" / "generate" / "release.yaml"


@dataclass(frozen=True)
class Sampling:
    """How a video is sampled, with nothing left open. Sizes in pixels and frames of the video."""

    num_frames: int
    height: int
    width: int
    fps: int
    num_sampling_steps: int
    guidance_scale: float
    sample_method: str
    seed: int


def complete_sampling(model: ModelFolder, **given: Any) -> Sampling:
    """`given` fields of Sampling, those that are absent or None from the model's preset and configuration.

    Raises ValueError for values that this model cannot sample.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    transformer, vae = load_config(model.transformer), load_config(model.vae)
    try:
        # A stage of the autoencoder without a name keeps the size; every other one halves it.
        spatial = 2 ** sum(map(bool, vae["encoder_spatial_downsample"]))
        temporal = 2 ** sum(map(bool, vae["encoder_temporal_downsample"]))
        patch = int(transformer["patch_size"])
        rows, columns = transformer["sample_size"]
        sizes = {
            "height": rows * spatial,
            "width": columns * spatial,
            "num_frames": (transformer["video_length"] - 1) * temporal + 1,
        }
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"config.json in {model.transformer} or {model.vae} is not that of a released model ({error!r})"
        ) from error
    names = {item.name for item in fields(Sampling)}
    defaults = {name: value for name, value in preset(model).items() if name in names}
    sampling = Sampling(**(sizes | defaults | chosen))

    stride = spatial * patch
    for name in ("height", "width"):
        value = getattr(sampling, name)
        if value < 1 or value % stride:
            near = max(round(value / stride), 1) * stride
            raise ValueError(
                f"{name} {value} is not a multiple of {stride} ({spatial} of the VAE times patches of {patch}): use {near}"
            )
    for name, least in (("num_frames", 1), ("fps", 1), ("seed", 0)):
        if getattr(sampling, name) < least:
            raise ValueError(f"{name} {getattr(sampling, name)} is too small: use {least} or more")
    if not math.isfinite(sampling.guidance_scale):
        raise ValueError(
            f"guidance_scale {sampling.guidance_scale} is not a number that can be used: choose one such as 7.5"
        )
    make_sampler(sampling.sample_method, sampling.num_sampling_steps)
    return sampling


def preset(model: ModelFolder) -> dict[str, Any]:
    """Defaults of sampling: `generate.yaml` of the model folder, else those of the published sample script."""
    path = model.path / "generate.yaml"
    content: dict[str, Any] = yaml.safe_load(
        (path if path.is_file() else RELEASE_PRESET).read_text(encoding="utf-8")
    )
    return content
