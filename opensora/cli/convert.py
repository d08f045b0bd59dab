"""`opensora convert --src t2v.pt --target folder`: published files and training runs to the release's layout, and back to MindSpore's."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

POSITIONAL = None


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """Options of `opensora convert`."""

    src: str
    """What to convert: a file (.safetensors, .pt, .pth, .bin, .ckpt), a model folder or a part of one, a checkpoint, or a run folder."""
    target: str
    """A file to write, the folder of one part, or the model folder that is to get the part."""
    to: Literal["pytorch", "mindspore"] | None = None
    """Whose format to write: pytorch is the release's layout, mindspore a .ckpt file; default: as the ending of the target says."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """How the weights are stored."""
    model_config: str | None = None
    """Folder of the config.json that describes the network; default: the target's, else the source's, else the published model's."""
    version: str | None = None
    """Folder of the transformer inside a model folder given as target, needed where there are several."""
    demo_data: str | None = None
    """Data set to measure an autoencoder's latents on, which are then given zero mean and unit variance after scaling."""


OPTIONS = ConvertOptions


def run(options: ConvertOptions) -> None:
    from opensora.models.convert import Conversion, convert

    change = None
    if options.demo_data is not None:
        from opensora.train.vae.normalise import normalise_on

        change = normalise_on(options.demo_data)
    convert(
        Path(options.src),
        Path(options.target),
        Conversion(options.to, options.dtype, options.model_config, options.version, change),
    )
