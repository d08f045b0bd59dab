"""How a model samples: the defaults of its folder, completed and checked. Does not import MindSpore."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from opensora.checks import at_least
from opensora.diffusion import make_sampler
from opensora.models.geometry import Size
from opensora.models.spec import ModelSpec
from opensora.weights import ModelFolder

RELEASE_PRESET = Path(__file__).parent.parent / "presets" / "generate" / "release.yaml"
OWN_DEFAULTS = "generate.yaml"


@dataclass(frozen=True)
class Sampling:
    """All settings of sampling a video; height and width in pixels."""

    num_frames: int
    height: int
    width: int
    fps: int
    num_sampling_steps: int
    guidance_scale: float
    sample_method: str
    seed: int

    @property
    def size(self) -> Size:
        """Frames, height and width of the video."""
        return self.num_frames, self.height, self.width


def complete_sampling(spec: ModelSpec, **given: Any) -> Sampling:
    """Sampling with the given fields; those absent or None come from the model's preset and configuration.

    Raises ValueError for values that this model cannot sample.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    size = dict(zip(("num_frames", "height", "width"), spec.native_size, strict=True))
    names = {item.name for item in fields(Sampling)}
    defaults = {name: value for name, value in _defaults(spec.paths).items() if name in names}
    sampling = Sampling(**(size | defaults | chosen))

    space, patch = spec.strides.space, spec.transformer.patch_size
    multiple = space * patch
    for name in ("height", "width"):
        value = getattr(sampling, name)
        if value < 1 or value % multiple:
            near = max(round(value / multiple), 1) * multiple
            raise ValueError(
                f"{name} {value} is not a multiple of {multiple} "
                f"({space} of the VAE times patches of {patch}): use {near}"
            )
    at_least(sampling, 1, "num_frames", "fps")
    at_least(sampling, 0, "seed")
    if not math.isfinite(sampling.guidance_scale):
        raise ValueError(
            f"guidance_scale {sampling.guidance_scale} is not a finite number: choose one such as 7.5"
        )
    make_sampler(sampling.sample_method, sampling.num_sampling_steps)
    return sampling


def has_own_defaults(paths: ModelFolder) -> bool:
    """Whether the model folder has a `generate.yaml`."""
    return (paths.path / OWN_DEFAULTS).is_file()


def _defaults(paths: ModelFolder) -> dict[str, Any]:
    """Sampling defaults: those of the model folder, else those of the reference's sample script."""
    path = paths.path / OWN_DEFAULTS if has_own_defaults(paths) else RELEASE_PRESET
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content
