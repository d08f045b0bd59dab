"""`opensora convert --src t2v.pt --target folder`: convert checkpoints between formats."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from opensora.models.convert import Change

POSITIONAL = None
CLIPS_MEASURED = 128


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """Options of `opensora convert`."""

    src: str
    """Source: a file (.safetensors, .pt, .pth, .bin, .ckpt), a model folder or one of its subfolders, a
    checkpoint, or a run folder."""
    target: str
    """File to write, folder of one model, or model folder."""
    to: Literal["pytorch", "mindspore"] | None = None
    """Format: pytorch is the release's layout, mindspore a .ckpt file; default: by the suffix of target."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Data type of the saved weights."""
    model_config: str | None = None
    """Folder of the network's config.json; default: the target's, the source's or the released model's."""
    version: str | None = None
    """Subfolder of the transformer if target is a model folder; required if there are several."""
    base: str | None = None
    """Make a whole model folder: copy the other parts of this one, or of "demo"."""
    overwrite: bool = False
    """Replace existing files of the target."""
    demo_data: str | None = None
    """Demo data set on which an autoencoder's latents are scaled to zero mean and unit variance."""


OPTIONS = ConvertOptions


def run(options: ConvertOptions) -> None:
    from opensora.models.convert import Conversion, convert

    change = None if options.demo_data is None else _normalised_on(options.demo_data)
    convert(
        Path(options.src),
        Path(options.target),
        Conversion(
            options.to,
            options.dtype,
            options.model_config,
            options.version,
            change,
            options.base,
            options.overwrite,
        ),
    )


def _normalised_on(demo_data: str) -> "Change":
    """Gives an autoencoder's latents zero mean and unit variance on clips of the demo data set."""
    from opensora.demo_data.render import DemoClips, Renderer
    from opensora.media.pixels import to_pixels
    from opensora.models.causal_vae.normalise import normalised_weights

    clips = DemoClips(Renderer(demo_data), seed=1)
    videos = (to_pixels(clips[number].video[None]) for number in range(CLIPS_MEASURED))
    return lambda config, weights: normalised_weights(config, weights, videos)
