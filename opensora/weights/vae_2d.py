"""Autoencoders of images, such as sd-vae-ft-mse, with the names of the latent-diffusion code for any source.

The video autoencoder has the same names of layers, with `.conv` after convolutions, so inflation only maps
shapes.
"""

import logging
import re
from math import prod
from pathlib import Path

from opensora.weights.files import Shapes, WeightsError, WeightsFile
from opensora.weights.release import FLOATING, TensorSource
from opensora.weights.sources import open_file, weight_files

log = logging.getLogger(__name__)

Places = dict[str, tuple[WeightsFile | None, str, tuple[int, ...]]]
"""By name: the file, the name there, and the shape."""

PLACES = (
    (re.compile(r"^encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\."), r"encoder.down.\1.block.\2."),
    (re.compile(r"^encoder\.down_blocks\.(\d+)\.downsamplers\.0\."), r"encoder.down.\1.downsample."),
    (re.compile(r"^decoder\.up_blocks\.(\d+)\.resnets\.(\d+)\."), r"decoder.up.\1.block.\2."),
    (re.compile(r"^decoder\.up_blocks\.(\d+)\.upsamplers\.0\."), r"decoder.up.\1.upsample."),
    (re.compile(r"\.mid_block\.resnets\.0\."), ".mid.block_1."),
    (re.compile(r"\.mid_block\.resnets\.1\."), ".mid.block_2."),
    (re.compile(r"\.mid_block\.attentions\.0\."), ".mid.attn_1."),
    (re.compile(r"\.conv_shortcut\."), ".nin_shortcut."),
    (re.compile(r"\.conv_norm_out\."), ".norm_out."),
)
ATTENTION = {
    "group_norm": "norm", "query": "q", "to_q": "q", "key": "k", "to_k": "k", "value": "v", "to_v": "v",
    "proj_attn": "proj_out", "to_out.0": "proj_out",
}  # fmt: skip
PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
UP = re.compile(r"^decoder\.up\.(\d+)\.")


def is_vae_2d(file: WeightsFile) -> bool:
    """True if a file contains an image autoencoder, whose convolutions are two-dimensional."""
    shapes = [
        entry.shape
        for name, entry in file.entries.items()
        if re.search(r"(^|\.)quant_conv\.", name) and name.endswith("weight")
    ]
    return bool(shapes) and all(len(shape) == 4 for shape in shapes)


def open_vae_2d(source: str | Path, expected: Shapes | None = None) -> TensorSource:
    """The weights of an image autoencoder. Linear layers of the attention become 1x1 convolutions.

    expected: names and shapes of a video autoencoder that works frame by frame, for its names and shapes.
    Raises WeightsError for other files.
    """
    paths = weight_files(source)
    files = [open_file(path) for path in paths]
    if not any(map(is_vae_2d, files)):
        raise WeightsError(
            f"{source} holds no autoencoder of images: name the file of one, such as sd-vae-ft-mse's"
        )
    names = [(file, stored) for file in files for stored in file.entries]
    last_level = max(
        (int(found[1]) for _, stored in names if (found := re.search(r"up_blocks\.(\d+)\.", stored))),
        default=0,
    )
    where: Places = {}
    left = 0
    for file, stored in names:
        name, shape = _latent_diffusion_name(stored, last_level), file.entries[stored].shape
        if not name.startswith(PARTS):
            left += 1
            continue
        if ".attn_1." in name and len(shape) == 2:
            shape = (*shape, 1, 1)
        if file.entries[stored].dtype not in FLOATING:
            raise WeightsError(
                f"{file.path}: {stored} is stored as {file.entries[stored].dtype}: "
                "use a file with weights in F32 or F16"
            )
        where[name] = file, stored, shape
    if left:
        log.info("%s: ignored %d tensors that are not the autoencoder's", source, left)
    return TensorSource(where if expected is None else _of_video(where, expected, source))


def image_name(name: str) -> str:
    """The name of a video autoencoder's weight in an image autoencoder: without a last `.conv`."""
    return "".join(name.rsplit(".conv", 1))


def _of_video(where: Places, expected: Shapes, source: str | Path) -> Places:
    """The places of the image autoencoder's tensors under the names of `expected`."""
    found: Places = {}
    missing = []
    for name, shape in expected.items():
        place = where.get(name) or where.get(image_name(name))
        if place is None or prod(place[2]) != prod(shape):
            missing.append(name)
        else:
            found[name] = (*place[:2], shape)
    if missing:
        raise WeightsError(
            f"the tensors in {source} are not those of its config.json ({len(missing)} missing or of another "
            f"shape: {', '.join(missing[:10])}): use the file that belongs to it"
        )
    return found


def _latent_diffusion_name(stored: str, last_level: int) -> str:
    name = re.sub(r"^(first_stage_model|autoencoder|vae|module)\.", "", stored)
    published = name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
    for place, here in PLACES:
        name = place.sub(here, name)
    if ".mid.attn_1." in name:
        start, _, part = name.rpartition(".mid.attn_1.")
        layer, _, last = part.rpartition(".")
        name = f"{start}.mid.attn_1.{ATTENTION.get(layer, layer)}.{last}"
    if name == published:
        return name
    # Diffusers counts the levels of the decoder from the latents, latent diffusion from the pixels.
    return UP.sub(lambda found: f"decoder.up.{last_level - int(found[1])}.", name)
