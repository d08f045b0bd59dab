"""The autoencoder with random weights: encode or decode, by default 9x128x128 frames at the release's width.

python -m benchmarks.vae decode --frames 65 --memory chunked --engine openvino --precision bf16

The weights lie in a file, as those of users do. Prints a line of JSON: seconds of each repeat, the first of
which compiles, and the peak memory.
"""

import argparse
import tempfile
from dataclasses import asdict
from multiprocessing import get_context

import numpy as np

from benchmarks.repeat import add_options, repeat
from opensora.models.causal_vae.config import CausalVAEConfig, weight_shapes
from opensora.models.causal_vae.model import CausalVAE
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.models.causal_vae.tiling import Tiling
from opensora.weights import save_weights


def save_random(folder: str, hidden_size: int) -> None:
    rng, config = np.random.default_rng(0), CausalVAEConfig(hidden_size=hidden_size)
    arrays = {
        name: rng.standard_normal(shape, np.float32) / np.sqrt(np.prod(shape[1:], dtype=np.float32))
        for name, shape in weight_shapes(config).items()
    }
    save_weights(folder, asdict(config), arrays)


def measure(vae: CausalVAE, options: argparse.Namespace) -> None:
    if options.memory == "tiled":
        # Where the reference's tiles of 256 pixels and 65 frames hold it all, a quarter of them, so that
        # there is something to tile.
        vae.tiling = Tiling() if options.size > 256 else Tiling(size=64, frames=17)
    else:
        vae.policy = VAEPolicy.choose("CPU", options.memory, engine=options.engine)
    rng, shape = np.random.default_rng(0), (1, 3, options.frames, options.size, options.size)
    labels = {"half": options.half, "engine": options.engine, "precision": options.precision}
    if options.half == "encode":
        video = vae.engine.tensor(rng.uniform(-1, 1, shape).astype(np.float32))
        repeat(options.repeats, lambda: vae.encode(video).mean.asnumpy(), **labels)
    else:
        latents = vae.engine.tensor(rng.standard_normal(vae.latent_shape(shape), np.float32))
        repeat(options.repeats, lambda: vae.decode(latents).asnumpy(), **labels)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("half", choices=("encode", "decode"))
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--hidden_size", type=int, default=128)
    parser.add_argument("--memory", choices=("auto", "exact", "chunked", "tiled"), default="auto")
    add_options(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # Another process makes the weights, so that the peak memory is that of the model alone.
        writer = get_context("spawn").Process(target=save_random, args=(folder, options.hidden_size))
        writer.start()
        writer.join()
        measure(
            CausalVAE.from_pretrained(folder, engine=options.engine, precision=options.precision), options
        )


if __name__ == "__main__":
    main()
