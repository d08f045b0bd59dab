"""Set up `opensora train-vae`: its options become networks, clips, a loss and a training loop."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from opensora.data.clips import Segment
from opensora.data.dataset import ArrayClips, DemoDataset, VideoDataset
from opensora.data.dataset.videos import HELD_OUT_INTERVAL, split
from opensora.data.lists.files import listed_files
from opensora.demo_data.render import DemoClips, Renderer
from opensora.engine import choose_training_engine
from opensora.engine.mindspore import set_jit
from opensora.media.formats import media_files
from opensora.models.causal_vae.config import CausalVAEConfig
from opensora.models.causal_vae.model import CausalVAE
from opensora.models.discriminator import Discriminator
from opensora.models.lpips import LPIPS
from opensora.parallel.mesh import Mesh, open_mesh
from opensora.runtime import mindspore
from opensora.train.loop import train
from opensora.train.vae.loss import PENALTIES, VAELoss
from opensora.train.vae.options import TrainVAEOptions
from opensora.train.vae.task import ClipSequence, VAETask
from opensora.weights import read_config
from opensora.weights.folder import find_autoencoder
from opensora.weights.inflation import collapse_time
from opensora.weights.sources import folder_files

ms = mindspore()
log = logging.getLogger(__name__)

LOSS_DEFAULTS: dict[str, Any] = {
    "kl_weight": 1e-6,
    "logvar_init": 0.0,
    "perceptual_weight": 1.0,
    "disc_start": 2001,
    "disc_weight": 0.5,
    "disc_loss": "hinge",
    "disc_num_layers": 3,
}
DEMO_VALIDATION_FRAMES = 17
"""Frames of a validation clip of the demo data set, whatever the length of clips in training."""


def train_vae(
    options: TrainVAEOptions, *, data: Iterable[np.ndarray] | None = None, loss: VAELoss | None = None
) -> int:
    """Run `opensora train-vae`, alone or with the processes that `msrun` started. Returns the exit code.

    data: frames uint8 (T, H, W, 3) each, in place of the files that the options name; one clip of twenty, but
        at least one, is held out.
    loss: an object with what training uses of `VAELoss`, in place of the one that the options describe.
    """
    if data is None:
        options.require_source()
    options = _with_demo(options)
    set_jit(options.mode == 0)
    with open_mesh(1, 1, options.use_parallel, options.rank_timeout) as mesh:
        config = Path(options.model_config)
        initial = [config] if config.is_dir() and folder_files(config) else []
        return train(make_task(options, mesh, data, loss), options, mesh, initial)


def _with_demo(options: TrainVAEOptions) -> TrainVAEOptions:
    """The options with the folder of the packaged autoencoder in place of "demo"."""
    demo = str(find_autoencoder("demo"))
    config, initial = options.model_config, options.load_from_checkpoint
    return replace(
        options,
        model_config=demo if config == "demo" else config,
        load_from_checkpoint=demo if initial == "demo" else initial,
    )


def make_task(
    options: TrainVAEOptions,
    mesh: Mesh,
    data: Iterable[np.ndarray] | None = None,
    loss: VAELoss | None = None,
) -> VAETask:
    """The task that the options describe.

    data, loss: see `train_vae`. Raises ValueError or WeightsError for files that cannot be used.
    """
    config = read_config(options.model_config)
    rng = np.random.default_rng(options.seed)
    vae = CausalVAE.initialise(CausalVAEConfig.from_dict(config), rng)
    if options.load_from_checkpoint is not None:
        vae.load_weights(options.load_from_checkpoint)
        if options.collapse_time:
            collapsed = collapse_time({name: value.asnumpy() for name, value in vae.weights.items()}, rng)
            vae.weights = {name: ms.Tensor(value) for name, value in collapsed.items()}
    vae.engine = choose_training_engine(options.engine_of_mode)
    clips, validation = make_clips(options) if data is None else _array_clips(options, data)
    return VAETask(vae, clips, validation, loss or make_loss(options, config, rng), options, mesh)


def make_loss(options: TrainVAEOptions, config: dict[str, Any], rng: np.random.Generator) -> VAELoss:
    """The loss that options and configuration describe.

    config: the content of config.json. The released one has loss_params, an object, and loss_type, a class
    name that ends with 2D or 3D. Options win over loss_params, which win over LOSS_DEFAULTS.
    """
    given = {name: getattr(options, name) for name in LOSS_DEFAULTS if getattr(options, name) is not None}
    loss_params = config.get("loss_params")
    chosen = LOSS_DEFAULTS | (loss_params if isinstance(loss_params, dict) else {}) | given
    if chosen["disc_loss"] not in PENALTIES:
        raise ValueError(
            f"disc_loss {chosen['disc_loss']!r} in loss_params is unknown: "
            f"choose one of {', '.join(PENALTIES)}"
        )
    discriminator = None
    if options.use_discriminator:
        dims = options.disc_dims or ("3" if str(config.get("loss_type", "3D")).endswith("3D") else "2")
        discriminator = Discriminator.initialise(int(dims), rng, int(chosen["disc_num_layers"]))
    perceptual = None
    if options.lpips_weights:
        perceptual = LPIPS.from_files(options.lpips_weights)
    else:
        log.info("no perceptual loss, since --lpips_weights names no file")
    return VAELoss(
        kl_weight=float(chosen["kl_weight"]),
        logvar=float(chosen["logvar_init"]),
        squared_weight=options.squared_weight,
        motion_weight=options.motion_weight,
        motion_strength_weight=options.motion_strength_weight,
        perceptual=perceptual,
        perceptual_weight=float(chosen["perceptual_weight"]),
        discriminator=discriminator,
        disc_start=int(chosen["disc_start"]),
        disc_weight=float(chosen["disc_weight"]),
        disc_loss=chosen["disc_loss"],
    )


def make_clips(options: TrainVAEOptions) -> tuple[ClipSequence, list[np.ndarray]]:
    """(clips for training, clips for validation, uint8 (T, H, W, 3) each)."""
    if options.demo_data is not None:
        return _demo_clips(options, options.demo_data)
    if options.data_file_path is None:
        paths = _videos(options.video_path or "")
    else:
        folder = options.video_path or Path(options.data_file_path).parent
        paths = listed_files(options.data_file_path, folder, options.video_column, repeats=True)
    frames, size = options.video_num_frames, options.resolution
    if options.validation_video_path is None:
        segments, held_out = split(paths, frames, options.fps)
    else:
        segments = [Segment(path) for path in paths]
        held_out = [Segment(path) for path in _videos(options.validation_video_path)]
    same = ", parts of the same" if held_out[0].start else ""
    log.info("%d videos for training, %d for validation%s", len(segments), len(held_out), same)
    cutting = options.sample_rate, options.dynamic_sample, options.random_crop
    clips = VideoDataset(segments, options.seed, frames, size, *cutting, options.fps)
    validation = VideoDataset(held_out, 0, frames, size, options.sample_rate, fps=options.fps)
    return clips, [validation.clip(number) for number in range(options.num_validation_clips)]


def _array_clips(
    options: TrainVAEOptions, data: Iterable[np.ndarray]
) -> tuple[ClipSequence, list[np.ndarray]]:
    items, cut = list(data), (options.video_num_frames, options.resolution, options.sample_rate)
    count = max(1, len(items) // HELD_OUT_INTERVAL)
    held_out, training = items[-count:], items[:-count] or items
    validation = ArrayClips(held_out, 0, *cut)
    clips = [validation.clip(number) for number in range(options.num_validation_clips)]
    return ArrayClips(training, options.seed, *cut), clips


def _demo_clips(options: TrainVAEOptions, folder: str) -> tuple[ClipSequence, list[np.ndarray]]:
    renderer, size = Renderer(folder), options.resolution
    clips = DemoClips(renderer, options.seed, "train", options.video_num_frames, size)
    held_out = DemoClips(renderer, 0, "held_out", DEMO_VALIDATION_FRAMES, size)
    return DemoDataset(clips), [held_out[number].video for number in range(options.num_validation_clips)]


def _videos(path: str) -> list[Path]:
    """The file itself, or the videos and pictures in a folder and its subfolders."""
    return [Path(path)] if Path(path).is_file() else media_files(path, recursive=True)
