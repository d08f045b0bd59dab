"""From the options of a training command to the networks and data it names, and to the loop."""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from opensora.data.loader import Loader
from opensora.data.samples import SampleSource
from opensora.data.setup import make_source
from opensora.engine.mindspore import set_jit
from opensora.files import write_atomic
from opensora.models.causal_vae.model import CausalVAE
from opensora.models.causal_vae.tiling import Tiling
from opensora.models.latte.model import LatteConfig, LatteT2V
from opensora.models.spec import ModelSpec
from opensora.models.t5.model import T5Config, T5Encoder
from opensora.options import by_group
from opensora.parallel.mesh import Mesh, open_mesh
from opensora.runtime import compute_dtype
from opensora.train.loop import train
from opensora.train.t2v.options import TrainOptions
from opensora.train.t2v.task import Preview, T2VTask
from opensora.weights import WeightsError, load_config, weight_files
from opensora.weights.folder import find_autoencoder


def train_t2v(options: TrainOptions, make_preview: Callable[[Sequence[str], ModelSpec], Preview]) -> int:
    """Run `opensora train`, in one process or together with those that `msrun` started. Returns the exit code.

    make_preview: what turns prompts and a model into the videos of a validation.
    """
    set_jit(options.mode == 0)
    compute_dtype(options.number_format)  # refused now, and not after everything is loaded
    with open_mesh(options.sp_size, use_parallel=options.use_parallel) as mesh:
        return _train_t2v(options, mesh, make_preview)


def _train_t2v(
    options: TrainOptions, mesh: Mesh, make_preview: Callable[[Sequence[str], ModelSpec], Preview]
) -> int:
    if options.scale_lr:
        samples = options.samples_per_step * mesh.data[1]
        options = replace(options, scale_lr=False, learning_rate=options.learning_rate * samples)
    spec = ModelSpec.find(options.model_path, options.version, options.text_encoder_name, options.num_frames)
    if options.ae_path is not None:
        spec = spec.with_vae(find_autoencoder(options.ae_path))
    options = replace(options, model_max_length=options.model_max_length or spec.text_length)
    paths = spec.paths
    known_vae = paths.vae if any(paths.vae.glob("*.safetensors")) else None
    source = make_source(options, options.seed, paths.text_encoder, known_vae, spec.strides)
    config = _sized(LatteConfig.from_dict({**spec.transformer.to_dict(), **_changes(options)}), source)
    rng = np.random.default_rng(options.seed)
    model = LatteT2V.initialise(config, rng)
    text_encoder = None if options.text_embed_cache else _text_encoder(options, paths.text_encoder, rng)
    if options.pretrained is not None:
        model.load_weights(options.pretrained)
    with ExitStack() as stack:
        run = Path(options.output_dir)
        quarantine = run / ("quarantine.jsonl" if mesh.is_first else f"quarantine-{mesh.rank}.jsonl")
        data = stack.enter_context(
            Loader(source, options.dataloader_num_workers, quarantine, options.max_bad_rate)
        )
        held_out = (
            None if options.validation_latent_folder is None else Loader(_held_out(options, spec, known_vae))
        )
        vae = None if source.encoded else _vae(options, paths.vae)
        if mesh.is_first:
            _write_settings(run, options, config)
        preview = None
        if options.validation_prompts and mesh.is_first:
            trained = replace(spec, paths=replace(paths, transformer=run), transformer=config)
            preview = make_preview(options.validation_prompts, trained)
        return train(T2VTask(model, text_encoder, vae, data, held_out, options, mesh, preview), options, mesh)


def _sized(config: LatteConfig, source: SampleSource) -> LatteConfig:
    """The model for clips of this size: its positions span as many frames and patches as they have; all weights fit."""
    clip = source.clip
    frames, side, _ = source.strides.latent_size((clip.num_frames, clip.max_image_size, clip.max_image_size))
    side += side % config.patch_size
    return replace(config, video_length=frames, sample_size=(side, side))


def _changes(options: TrainOptions) -> dict[str, Any]:
    """What the options change in the transformer's configuration."""
    given = {name: getattr(options, name) for name in ("use_rope", "compress_kv_factor", "model_max_length")}
    return {name: value for name, value in given.items() if value is not None}


def _text_encoder(options: TrainOptions, folder: Path | None, rng: np.random.Generator) -> T5Encoder:
    """The encoder as its folder has it; or one to train, fresh or from the checkpoint that `pretrained` names."""
    if folder is None:
        raise WeightsError(
            f"{options.model_path} has no text_encoder: name its folder with --text_encoder_name, or use --text_embed_cache"
        )
    if not options.train_text_encoder:
        return T5Encoder.from_pretrained(folder)
    encoder = T5Encoder.initialise(T5Config.from_dict(load_config(folder)), rng)
    trained = (
        None
        if options.pretrained is None
        else weight_files(options.pretrained)[0].parent / "text_encoder_ema.safetensors"
    )
    if trained is not None:
        encoder.load_weights(trained if trained.is_file() else folder)
    return encoder


def _vae(options: TrainOptions, folder: Path) -> CausalVAE:
    vae = CausalVAE.from_pretrained(folder)
    if options.enable_tiling:
        vae.tiling = Tiling(overlap=options.tile_overlap_factor)
    return vae


def _held_out(options: TrainOptions, spec: ModelSpec, vae: Path | None) -> SampleSource:
    """What is measured on in validation: every caption as it is."""
    cached = replace(
        options, vae_latent_folder=options.validation_latent_folder, video_data=None, image_data=None, image_latent_folder=None,
        text_embed_cache=False, caption_dropout=0.0,
    )  # fmt: skip
    return make_source(cached, options.seed, spec.paths.text_encoder, vae, spec.strides)


def _write_settings(run: Path, options: TrainOptions, config: LatteConfig) -> None:
    """Save the options, and the transformer's configuration, which a model folder of its weights needs."""
    run.mkdir(parents=True, exist_ok=True)
    content = yaml.safe_dump(by_group(options), sort_keys=False).encode()
    write_atomic(run / "config.yaml", lambda file: file.write(content))
    write_atomic(
        run / "config.json", lambda file: file.write((json.dumps(config.to_dict(), indent=2) + "\n").encode())
    )
