"""From the options of a training command to the networks and data it names, and to the loop."""

import sys

import numpy as np

from opensora.data.cache import LatentCache, write_latents
from opensora.data.demo import DemoClips, Renderer
from opensora.data.tokenizer import Tokenizer
from opensora.models.causal_vae import CausalVAE, CausalVAEConfig
from opensora.models.latte import LatteConfig, LatteT2V
from opensora.models.t5 import T5Config, T5Encoder
from opensora.runtime import mindspore
from opensora.train.loop import train
from opensora.train.options import EncodeLatentsOptions, TrainOptions, TrainVAEOptions
from opensora.train.t2v import T2VTask
from opensora.train.vae import VAETask, to_pixels
from opensora.weights import WeightsError, find_model, load_config, weight_files

ms = mindspore()


def train_vae(options: TrainVAEOptions) -> int:
    """Run `opensora train-vae`. Returns the exit code."""
    config = CausalVAEConfig.from_dict(load_config(options.model_config))
    vae = CausalVAE.initialise(config, np.random.default_rng(options.seed))
    if options.load_from_checkpoint is not None:
        vae.load_weights(options.load_from_checkpoint)
    renderer = Renderer(options.demo_data)
    clips = DemoClips(renderer, options.seed, "train", options.video_num_frames, options.resolution)
    held_out = DemoClips(renderer, 0, "held_out", 17, options.resolution)
    validation = [held_out[index].video for index in range(options.num_validation_clips)]
    return train(VAETask(vae, lambda index: clips[index].video, validation, options), options)


def train_t2v(options: TrainOptions) -> int:
    """Run `opensora train`. Returns the exit code."""
    folders = find_model(options.model_path, options.version)
    if folders.text_encoder is None:
        raise WeightsError(f"{folders.path} has no text_encoder: its config.json and spiece.model are needed to train one")
    rng = np.random.default_rng(options.seed)
    model = LatteT2V.initialise(LatteConfig.from_dict(load_config(folders.transformer)), rng)
    text_encoder = T5Encoder.initialise(T5Config.from_dict(load_config(folders.text_encoder)), rng)
    if options.pretrained is not None:
        model.load_weights(options.pretrained)
        text_encoder_weights = weight_files(options.pretrained)[0].parent / "text_encoder_ema.safetensors"
        if text_encoder_weights.is_file():
            text_encoder.load_weights(text_encoder_weights)
    caches = LatentCache(options.vae_latent_folder), LatentCache(options.validation_latent_folder)
    return train(T2VTask(model, text_encoder, Tokenizer.from_folder(folders.text_encoder), *caches, options), options)


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
