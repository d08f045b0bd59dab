"""From the options of a training command to the networks and data it names, and to the loop."""

import sys
from pathlib import Path

import numpy as np

from opensora.data.cache import LatentCache, write_latents
from opensora.data.demo import DemoClips, Renderer
from opensora.data.tokenizer import Tokenizer
from opensora.models.causal_vae import CausalVAE
from opensora.models.latte import LatteConfig, LatteT2V
from opensora.models.t5 import T5Config, T5Encoder
from opensora.parallel.mesh import Mesh, open_mesh
from opensora.runtime import mindspore
from opensora.train.loop import train
from opensora.train.options import EncodeLatentsOptions, TrainOptions
from opensora.train.t2v import T2VTask
from opensora.train.vae import to_pixels
from opensora.weights import WeightsError, find_model, load_config

ms = mindspore()


def train_t2v(options: TrainOptions) -> int:
    """Run `opensora train`, in one process or together with those that `msrun` started. Returns the exit code."""
    with open_mesh(options.sp_size, use_parallel=options.use_parallel) as mesh:
        return train(_t2v_task(options, mesh), options, mesh)


def _t2v_task(options: TrainOptions, mesh: Mesh) -> T2VTask:
    folders = find_model(options.model_path, options.version)
    if folders.text_encoder is None:
        raise WeightsError(f"{folders.path} has no text_encoder: its config.json and spiece.model are needed to train one")
    rng = np.random.default_rng(options.seed)
    model = LatteT2V.initialise(LatteConfig.from_dict(load_config(folders.transformer)), rng)
    text_encoder = T5Encoder.initialise(T5Config.from_dict(load_config(folders.text_encoder)), rng)
    if options.pretrained is not None:
        start = Path(options.pretrained)
        model.load_weights(_average(start))
        text_encoder.load_weights(start / "text_encoder_ema.safetensors")
    caches = LatentCache(options.vae_latent_folder), LatentCache(options.validation_latent_folder)
    return T2VTask(model, text_encoder, Tokenizer.from_folder(folders.text_encoder), *caches, options, mesh)


def encode_latents(options: EncodeLatentsOptions) -> None:
    """Run `opensora encode-latents`."""
    vae = CausalVAE.from_pretrained(options.vae)
    clips = DemoClips(Renderer(options.demo_data), options.seed, options.split, options.num_frames, options.resolution)
    captions, parts = [], []
    for first in range(0, options.num_clips, options.batch_size):
        batch = [clips[index] for index in range(first, min(first + options.batch_size, options.num_clips))]
        captions += [clip.caption for clip in batch]
        video = to_pixels(np.stack([clip.video for clip in batch]))
        parts.append(vae.encode(ms.Tensor(video)).moments.asnumpy())
        print(f"encoded {len(captions)}/{options.num_clips} clips", file=sys.stderr, flush=True)
    write_latents(options.output_path, captions, parts)


def _average(checkpoint: Path) -> Path:
    """The moving average inside a checkpoint folder, or the folder itself where it is a model's."""
    average = checkpoint / "ema.safetensors"
    return average if average.is_file() else checkpoint
