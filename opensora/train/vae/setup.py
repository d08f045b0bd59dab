"""From the options of `opensora train-vae` to the networks and clips they name, and to the loop; and the inflation before it."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from opensora.data.clips import Segment
from opensora.data.dataset import DemoDataset, VideoDataset
from opensora.data.dataset.videos import split
from opensora.data.lists.files import listed_files
from opensora.demo_data.render import DemoClips, Renderer
from opensora.engine.mindspore import set_jit
from opensora.files import write_atomic
from opensora.media.formats import media_files
from opensora.models.causal_vae.config import CausalVAEConfig, weight_shapes
from opensora.models.causal_vae.model import CausalVAE
from opensora.models.discriminator import Discriminator
from opensora.models.lpips import LPIPS
from opensora.parallel.mesh import Mesh, open_mesh
from opensora.runtime import mindspore
from opensora.train.loop import train
from opensora.train.vae.loss import PENALTIES, VAELoss
from opensora.train.vae.options import TrainVAEOptions
from opensora.train.vae.task import Clips, VAETask
from opensora.weights import WeightsError, load_config, save_tensors, save_weights
from opensora.weights.inflation import collapse_time, inflate
from opensora.weights.mindspore_file import write_checkpoint
from opensora.weights.names import mindspore_name
from opensora.weights.sources import SUFFIXES, read_object
from opensora.weights.vae_2d import open_vae_2d

ms = mindspore()
log = logging.getLogger(__name__)

LOSS_DEFAULTS: dict[str, Any] = {
    "kl_weight": 1e-6, "logvar_init": 0.0, "perceptual_weight": 1.0,
    "disc_start": 2001, "disc_weight": 0.5, "disc_loss": "hinge", "disc_num_layers": 3,
}  # fmt: skip
FRAMES_OF_VALIDATION = 17  # of the demo data set


def train_vae(options: TrainVAEOptions) -> int:
    """Run `opensora train-vae`, in one process or together with those that `msrun` started. Returns the exit code."""
    set_jit(options.mode == 0)
    with open_mesh(use_parallel=options.use_parallel) as mesh:
        return train(_task(options, mesh), options, mesh)


def _task(options: TrainVAEOptions, mesh: Mesh) -> VAETask:
    content = read_config(options.model_config)
    rng = np.random.default_rng(options.seed)
    vae = CausalVAE.initialise(CausalVAEConfig.from_dict(content), rng)
    if options.load_from_checkpoint is not None:
        vae.load_weights(options.load_from_checkpoint)
        if options.collapse_time:
            collapsed = collapse_time({name: value.asnumpy() for name, value in vae.weights.items()}, rng)
            vae.weights = {name: ms.Tensor(value) for name, value in collapsed.items()}
    clips, validation = clips_of(options)
    return VAETask(vae, clips, validation, make_loss(options, content, rng), options, mesh)


def inflate_vae(src: str | Path, target: str | Path, model_config: str | Path | None) -> None:
    """Run `opensora inflate-vae`. target: a folder, or a .safetensors or .ckpt file; raises WeightsError for one that exists already."""
    path = Path(target)
    if path.suffix in SUFFIXES and path.suffix not in (".safetensors", ".ckpt"):
        raise WeightsError(
            f"target {path} has an ending that is not written: use .safetensors or .ckpt, or name a folder"
        )
    if path.is_file() or any(path.glob("*.safetensors")):
        raise WeightsError(f"target {path} is a file, or a folder with weights: name a new one")
    content = asdict(CausalVAEConfig()) if model_config is None else read_config(model_config)
    weights = inflate(open_vae_2d(src), weight_shapes(CausalVAEConfig.from_dict(content)))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".ckpt":
        write_atomic(path, lambda file: write_checkpoint(file, weights, mindspore_name))
    elif path.suffix == ".safetensors":
        save_tensors(path, weights)
    else:
        save_weights(path, content, weights)
    log.info("%s: video autoencoder, %d tensors, from %s", path, len(weights), src)


def read_config(path: str | Path) -> dict[str, Any]:
    """The content of a folder's config.json, or of a .json file."""
    return read_object(Path(path)) if Path(path).is_file() else load_config(path)


def make_loss(options: TrainVAEOptions, config: dict[str, Any], rng: np.random.Generator) -> VAELoss:
    """The loss that the options ask for, completed from the published form of a configuration: its loss_params and loss_type."""
    given = {name: getattr(options, name) for name in LOSS_DEFAULTS if getattr(options, name) is not None}
    stated = config.get("loss_params")
    chosen = LOSS_DEFAULTS | (stated if isinstance(stated, dict) else {}) | given
    if chosen["disc_loss"] not in PENALTIES:
        raise ValueError(
            f"disc_loss {chosen['disc_loss']!r} in loss_params is unknown: choose one of {', '.join(PENALTIES)}"
        )
    discriminator = None
    if options.use_discriminator:
        is_3d = (
            options.disc_dims == "3"
            if options.disc_dims
            else str(config.get("loss_type", "3D")).endswith("3D")
        )
        discriminator = Discriminator.initialise(3 if is_3d else 2, rng, int(chosen["disc_num_layers"]))
    perceptual = None
    if options.lpips_weights:
        perceptual = LPIPS.from_files(options.lpips_weights)
    else:
        log.info("there is no perceptual term: --lpips_weights names the file that it needs")
    return VAELoss(
        kl_weight=float(chosen["kl_weight"]), logvar=float(chosen["logvar_init"]),
        squared_weight=options.squared_weight, motion_weight=options.motion_weight,
        motion_strength_weight=options.motion_strength_weight,
        perceptual=perceptual, perceptual_weight=float(chosen["perceptual_weight"]), discriminator=discriminator,
        disc_start=int(chosen["disc_start"]), disc_weight=float(chosen["disc_weight"]), disc_loss=chosen["disc_loss"],
    )  # fmt: skip


def clips_of(options: TrainVAEOptions) -> tuple[Clips, list[np.ndarray]]:
    """(clips to train on, clips to validate on)."""
    frames, size, count = options.video_num_frames, options.resolution, range(options.num_validation_clips)
    if options.demo_data is not None:
        renderer = Renderer(options.demo_data)
        held_out = DemoClips(renderer, 0, "held_out", FRAMES_OF_VALIDATION, size)
        clips = DemoClips(renderer, options.seed, "train", frames, size)
        return DemoDataset(clips), [held_out[number].video for number in count]
    if options.data_file_path is None:
        paths = _videos(options.video_path or "")
    else:
        folder = options.video_path or Path(options.data_file_path).parent
        paths = listed_files(options.data_file_path, folder, options.video_column, repeats=True)
    if options.validation_video_path is None:
        parts, rest = split(paths, frames)
    else:
        parts, rest = (
            [Segment(path) for path in paths],
            [Segment(path) for path in _videos(options.validation_video_path)],
        )
    log.info(
        "%d videos to train on, %d to validate on%s",
        len(parts),
        len(rest),
        ", parts of the same" if rest[0].start else "",
    )
    source = VideoDataset(
        parts, options.seed, frames, size, options.sample_rate, options.dynamic_sample, options.random_crop
    )
    held_out_clips = VideoDataset(rest, 0, frames, size, options.sample_rate)
    return source, [held_out_clips.clip(number) for number in count]


def _videos(path: str) -> list[Path]:
    """A file itself, or the videos and pictures in a folder and its subfolders."""
    return [Path(path)] if Path(path).is_file() else media_files(path, recursive=True)
