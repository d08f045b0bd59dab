"""The settings of sampling: the defaults of a model folder, completed and checked. Without MindSpore."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from opensora.checks import within
from opensora.config_files import Range, checked, ranges, read_settings, shown
from opensora.diffusion import make_sampler
from opensora.models.geometry import Size
from opensora.models.spec import ModelSpec
from opensora.weights import ModelFolder

RELEASE_PRESET = Path(__file__).parent.parent / "presets" / "generate" / "release.yaml"
OWN_DEFAULTS = "generate.yaml"


@dataclass(frozen=True)
class Sampling:
    """All settings of sampling a video; height and width in pixels."""

    num_frames: Annotated[int, Range(1, 2**14)]
    height: Annotated[int, Range(1, 2**14)]
    width: Annotated[int, Range(1, 2**14)]
    fps: Annotated[int, Range(1, 1000)]
    num_sampling_steps: Annotated[int, Range(1, 1000)]
    guidance_scale: Annotated[float, Range(-1000, 1000)]
    sample_method: str
    seed: Annotated[int, Range(0, 2**62)]

    @property
    def size(self) -> Size:
        """Frames, height and width of the video."""
        return self.num_frames, self.height, self.width

    def described(self, videos: int, sampled: bool = True) -> str:
        """For messages: "2 videos of 17 frames, 64x64, 20 x DPM++2M". sampled: name the sampler."""
        many = "s" if videos > 1 else ""
        kind = f"image{many}" if self.num_frames == 1 else f"video{many} of {self.num_frames} frames"
        steps = f", {self.num_sampling_steps} x {self.sample_method}" if sampled else ""
        return f"{videos} {kind}, {self.height}x{self.width}{steps}"


def complete_sampling(spec: ModelSpec, **given: Any) -> Sampling:
    """Sampling with the given fields; those absent or None come from the model's preset and configuration.

    Raises ValueError for values that this model cannot sample.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    size = dict(zip(("num_frames", "height", "width"), spec.native_size, strict=True))
    defaults = size | _defaults(spec.paths)
    if has_own_defaults(spec.paths):
        try:
            _check(Sampling(**defaults), spec)
        except ValueError as error:
            raise ValueError(f"{spec.paths.path / OWN_DEFAULTS}: {error}") from error
    sampling = Sampling(**(defaults | chosen))
    _check(sampling, spec)
    return sampling


def _check(sampling: Sampling, spec: ModelSpec) -> None:
    """Raise ValueError for values that this model cannot sample."""
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
    for name, limits in ranges(Sampling).items():
        within(sampling, limits.low, limits.high, name)
    make_sampler(sampling.sample_method, sampling.num_sampling_steps)


def has_own_defaults(paths: ModelFolder) -> bool:
    """True if the model folder has a `generate.yaml`."""
    return (paths.path / OWN_DEFAULTS).is_file()


def _defaults(paths: ModelFolder) -> dict[str, Any]:
    """Sampling defaults: those of the model folder; what it leaves open, the reference's sample script has.

    Raises ValueError for a `generate.yaml` with unknown names, or values of another type or out of range.
    """
    defaults = read_settings(RELEASE_PRESET)
    if not has_own_defaults(paths):
        return defaults
    path, hints = paths.path / OWN_DEFAULTS, get_type_hints(Sampling, include_extras=True)
    for name, value in read_settings(path).items():
        if name not in hints:
            raise ValueError(f"{path} has the unknown name {shown(name)}: use {', '.join(hints)}")
        defaults[name] = checked(hints[name], value, path, name)
    return defaults
