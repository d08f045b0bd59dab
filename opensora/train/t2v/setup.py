"""Set up `opensora train`: its options become networks, data and a training loop."""

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from opensora.data.dataset.arrays import Captioned
from opensora.data.loader import Loader
from opensora.data.samples import SampleSource
from opensora.data.setup import make_source
from opensora.engine.mindspore import set_jit
from opensora.models.latte.model import LatteConfig, LatteT2V
from opensora.models.spec import ModelSpec
from opensora.models.t5.model import T5Config, T5Encoder
from opensora.parallel.mesh import Mesh, open_mesh
from opensora.train.denoiser_setup import (
    load_vae,
    open_data,
    with_clip_of,
    with_scaled_rate,
    without_training_data,
)
from opensora.train.loop import train
from opensora.train.loss import OwnLoss
from opensora.train.precision import check_precision, training_engine
from opensora.train.t2v.options import TrainOptions
from opensora.train.t2v.task import Preview, T2VTask
from opensora.weights import WeightsError, load_config, trained_text_encoder
from opensora.weights.folder import find_autoencoder, find_model
from opensora.weights.sources import folder_files

log = logging.getLogger(__name__)

MakePreview = Callable[[Sequence[str], ModelSpec], Preview]
"""Makes the object that writes videos of prompts at each validation, from prompts and the model."""
MakeNetwork = Callable[[LatteConfig, np.random.Generator], LatteT2V]


def train_t2v(
    options: TrainOptions,
    make_preview: MakePreview | None = None,
    *,
    data: Iterable[Captioned] | None = None,
    network: MakeNetwork = LatteT2V.initialise,
    loss: OwnLoss | None = None,
) -> int:
    """Run `opensora train`, alone or with the processes that `msrun` started. Returns the exit code.

    make_preview: makes what writes videos of validation_prompts, `opensora.pipeline.preview.PromptPreview`.
    data: pairs of frames uint8 (T, H, W, 3) and a caption, in place of the files that the options name.
    network: makes the network from its configuration and a generator of random numbers. It has what training
        uses of `LatteT2V`: config, weights by name, forward_with_tape, load_weights and save_pretrained; its
        `engine` is set.
    loss: `loss(output, latents, noise, timestep, latent_mask)` of MindSpore's tensors gives the loss of each
        sample, (B,), in place of the diffusion loss; mse and vb are still logged.
    """
    set_jit(options.mode == 0)
    check_precision(options)
    job = open_mesh(options.sp_size, 1, options.use_parallel, options.rank_timeout)
    with job as mesh, ExitStack() as stack:
        options = with_scaled_rate(options, mesh)
        if options.pretrained == "demo":
            options = replace(options, pretrained=str(find_model("demo").transformer))
        spec = find_spec(options)
        options = replace(options, model_max_length=options.model_max_length or spec.text_length)
        source = _source(options, spec, data)
        options = with_clip_of(options, source)
        task = _make_task(options, spec, source, mesh, make_preview, network, loss, stack)
        return train(task, options, mesh, _weights_not_loaded(options, spec))


def _weights_not_loaded(options: TrainOptions, spec: ModelSpec) -> list[Path]:
    """The folders of the model with weights that training from random ones passes over."""
    trained = [spec.paths.transformer]
    if options.train_text_encoder and spec.paths.text_encoder is not None:
        trained.append(spec.paths.text_encoder)
    return [folder for folder in trained if folder_files(folder)]


def find_spec(options: TrainOptions) -> ModelSpec:
    """The model folder's description, with the autoencoder of ae_path."""
    spec = ModelSpec.find(options.model_path, options.version, options.text_encoder_name, options.num_frames)
    return spec if options.ae_path is None else spec.with_vae(find_autoencoder(options.ae_path))


def _make_task(
    options: TrainOptions,
    spec: ModelSpec,
    source: SampleSource,
    mesh: Mesh,
    make_preview: MakePreview | None,
    network: MakeNetwork,
    loss: OwnLoss | None,
    stack: ExitStack,
) -> T2VTask:
    """The task. stack: ends the processes that read samples."""
    paths = spec.paths
    config = _config(options, spec, source)
    rng = np.random.default_rng(options.seed)
    model = network(config, rng)
    text_encoder = None if options.text_embed_cache else _text_encoder(options, paths.text_encoder, rng)
    if options.pretrained is not None:
        model.load_weights(options.pretrained)
        if options.text_embed_cache and trained_text_encoder(options.pretrained) is not None:
            log.warning(
                "%s was trained with its text encoder: make sure that the cached embeddings are of that one, "
                "made after `opensora convert`",
                options.pretrained,
            )
    data = stack.enter_context(open_data(source, options, mesh))
    held_out = None if options.validation_latent_folder is None else Loader(held_out_source(options, spec))
    vae = None if source.encoded else load_vae(paths.vae, options)
    model.engine = training_engine(options)
    if text_encoder is not None:
        text_encoder.engine = model.engine
    preview = None
    if mesh.is_first and options.validation_prompts and make_preview is not None:
        in_training = replace(
            spec, paths=replace(paths, transformer=Path(options.output_dir)), transformer=config
        )
        preview = make_preview(options.validation_prompts, in_training)
    return T2VTask(model, text_encoder, vae, data, held_out, options, mesh, preview, loss)


def _source(options: TrainOptions, spec: ModelSpec, data: Iterable[Captioned] | None = None) -> SampleSource:
    """The samples that the options describe, or those of `data`. Caches must be of the model's encoders."""
    vae = spec.paths.vae if any(spec.paths.vae.glob("*.safetensors")) else None
    return make_source(options, options.seed, spec.paths.text_encoder, vae, spec.strides, data)


def held_out_source(options: TrainOptions, spec: ModelSpec) -> SampleSource:
    """The samples of the validation loss; no caption is left out."""
    validation = replace(without_training_data(options), text_embed_cache=False, caption_dropout=0.0)
    return _source(validation, spec)


def _config(options: TrainOptions, spec: ModelSpec, source: SampleSource) -> LatteConfig:
    """The transformer's configuration, with positions for the frames and patches of these clips."""
    names = ("use_rope", "compress_kv_factor", "prediction_type", "model_max_length")
    given = {name: getattr(options, name) for name in names}
    changes = {name: value for name, value in given.items() if value is not None}
    config = spec.transformer.changed(**changes)
    clip = source.clip
    frames, side, _ = source.strides.latent_size((clip.num_frames, clip.max_image_size, clip.max_image_size))
    side += side % config.patch_size
    compressed = [side // config.patch_size, *([frames] if clip.num_frames > 1 else [])]
    if config.compress_kv_factor > min(compressed):
        raise ValueError(
            f"compress_kv_factor {config.compress_kv_factor} is larger than the {min(compressed)} patches or "
            "latent frames that it divides: use a smaller one, or larger clips"
        )
    return replace(config, video_length=frames, sample_size=(side, side))


def _text_encoder(options: TrainOptions, folder: Path | None, rng: np.random.Generator) -> T5Encoder:
    """The encoder of `pretrained`, or else the folder's; one to be trained from scratch is random."""
    if folder is None:
        raise WeightsError(
            f"{options.model_path} has no text_encoder: name its folder with --text_encoder_name, "
            "or use --text_embed_cache"
        )
    trained = None if options.pretrained is None else trained_text_encoder(options.pretrained)
    if trained is None and (options.pretrained is not None or not options.train_text_encoder):
        return T5Encoder.from_pretrained(folder)
    config = T5Config.from_dict(load_config(folder))
    if trained is None:
        return T5Encoder.initialise(config, rng)
    log.info("the text encoder is the one that was trained with the transformer, %s", trained)
    encoder = T5Encoder(config, {})
    encoder.load_weights(trained)
    return encoder
