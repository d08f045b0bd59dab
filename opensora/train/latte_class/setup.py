"""From the options of `opensora train-class` to network and data, and to the training loop."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from opensora.data.labels import ClassLabels, NoLabels, find_class_names, read_class_names
from opensora.data.loader import Loader
from opensora.data.samples import SampleSource
from opensora.data.setup import Opened, open_source
from opensora.data.text.captions import CaptionFeatures
from opensora.engine.mindspore import set_jit
from opensora.models.causal_vae.config import CausalVAEConfig
from opensora.models.latte_class.config import LatteClassConfig
from opensora.models.latte_class.model import Latte
from opensora.models.latte_class.sizes import find_architecture
from opensora.parallel.mesh import Mesh, open_mesh
from opensora.train.denoiser_setup import (
    load_vae,
    open_data,
    with_clip_of,
    with_scaled_rate,
    without_training_data,
)
from opensora.train.latte_class.options import TrainClassOptions
from opensora.train.latte_class.task import ClassTask, Preview
from opensora.train.loop import train
from opensora.train.precision import check_precision, training_engine
from opensora.weights import CONFIG, load_config
from opensora.weights.folder import find_autoencoder

MakePreview = Callable[[Sequence[str], LatteClassConfig, Path], Preview]
"""From labels, the model's configuration and the autoencoder's folder to what makes videos of them."""


def train_class(options: TrainClassOptions, make_preview: MakePreview) -> int:
    """Run `opensora train-class`, alone or with the processes that `msrun` started. Returns the exit code."""
    set_jit(options.mode == 0)
    check_precision(options)
    job = open_mesh(1, 1, options.use_parallel, options.rank_timeout)
    with job as mesh, ExitStack() as stack:
        options = with_scaled_rate(options, mesh)
        vae = find_autoencoder(options.ae_path)
        labels = _Labels(options)
        source = _source(options, vae, labels, options.class_dropout_prob)
        options = with_clip_of(options, source)
        task = _make_task(options, vae, source, labels, mesh, make_preview, stack)
        return train(task, options, mesh, [])


class _Labels:
    """The classes of a run, found in its data or in a file; the same for training and held-out samples."""

    def __init__(self, options: TrainClassOptions) -> None:
        self.names: tuple[str, ...] | None = None
        if not options.train_classcondition:
            self.names = ()
        elif options.classes is not None:
            self.names = read_class_names(options.classes)

    def __call__(self, opened: Sequence[Opened]) -> Sequence[CaptionFeatures]:
        """The labels for each data set. Raises ValueError for classes that are not those of the run."""
        if self.names == ():
            return [NoLabels()] * len(opened)
        found = find_class_names([dataset for dataset, _ in opened])
        self.names = self.names or found
        labels = ClassLabels(self.names)
        for name in found:
            labels.require(name)
        return [labels] * len(opened)


def _source(options: TrainClassOptions, vae: Path, labels: _Labels, dropout: float) -> SampleSource:
    """The samples that the options describe. Caches must be of this autoencoder."""
    strides = CausalVAEConfig.from_dict(load_config(vae), vae / CONFIG).strides
    checked = vae if any(vae.glob("*.safetensors")) else None
    return open_source(options, options.seed, labels, dropout, checked, strides)


def _make_task(
    options: TrainClassOptions,
    vae: Path,
    source: SampleSource,
    labels: _Labels,
    mesh: Mesh,
    make_preview: MakePreview,
    stack: ExitStack,
) -> ClassTask:
    """The task. stack: ends the processes that read samples."""
    config = _config(options, vae, source, labels.names or ())
    model = Latte.initialise(config, np.random.default_rng(options.seed))
    if options.pretrained is not None:
        model.load_weights(options.pretrained)
    model.engine = training_engine(options)
    data = stack.enter_context(open_data(source, options, mesh))
    held_out = None
    if options.validation_latent_folder is not None:
        held_out = Loader(_source(without_training_data(options), vae, labels, 0.0))
    preview = None
    if mesh.is_first and options.validation_labels:
        preview = make_preview(options.validation_labels, config, vae)
    return ClassTask(
        model,
        None if source.encoded else load_vae(vae, options),
        data,
        held_out,
        options,
        mesh,
        preview,
    )


def _config(
    options: TrainClassOptions, vae: Path, source: SampleSource, names: tuple[str, ...]
) -> LatteClassConfig:
    """The configuration for these classes, clips and latents. Raises ValueError for what does not fit."""
    config = find_architecture(options.model)
    if names and config.variant == "single":
        raise ValueError(
            f"model {options.model} reads no labels: choose Latte-XL/122, or add --train_classcondition false"
        )
    channels, clip = CausalVAEConfig.from_dict(load_config(vae), vae / CONFIG).embed_dim, source.clip
    frames, side, _ = source.strides.latent_size((clip.num_frames, clip.max_image_size, clip.max_image_size))
    side += side % 2  # as batches are padded
    if side % config.patch_size:
        raise ValueError(
            f"latents of {side}x{side} cannot be divided into patches of {config.patch_size}: "
            "choose another max_image_size, or a model with other patches"
        )
    return config.changed(
        num_classes=len(names),
        class_names=names,
        class_dropout_prob=options.class_dropout_prob,
        in_channels=channels,
        out_channels=2 * channels,
        sample_size=(side, side),
        video_length=frames,
    )
