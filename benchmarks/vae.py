"""The autoencoder with random weights: encode or decode, by default 9x128x128 frames at the release's width.

python -m benchmarks.vae decode --frames 65 --memory chunked --engine openvino --precision bf16

Prints a line of JSON: seconds of each repeat, the first of which compiles, and the peak memory.
"""

import argparse

import numpy as np

from benchmarks.repeat import add_options, repeat
from opensora.engine import open_engine
from opensora.models.causal_vae.config import CausalVAEConfig, weight_shapes
from opensora.models.causal_vae.model import CausalVAE
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.models.causal_vae.tiling import Tiling

parser = argparse.ArgumentParser()
parser.add_argument("half", choices=("encode", "decode"))
parser.add_argument("--frames", type=int, default=9)
parser.add_argument("--size", type=int, default=128)
parser.add_argument("--hidden_size", type=int, default=128)
parser.add_argument("--memory", choices=("auto", "exact", "chunked", "tiled"), default="auto")
add_options(parser)
options = parser.parse_args()
labels = {"engine": options.engine, "precision": options.precision}

rng = np.random.default_rng(0)
config = CausalVAEConfig(hidden_size=options.hidden_size)
engine = open_engine(options.engine, options.precision)
arrays = {
    name: rng.standard_normal(shape, np.float32) / np.sqrt(np.prod(shape[1:], dtype=np.float32))
    for name, shape in weight_shapes(config).items()
}
vae = CausalVAE(config, engine.weights(arrays), engine)
del arrays
if options.memory == "tiled":
    # Where the reference's tiles of 256 pixels and 65 frames hold it all, a quarter of them, so that there is
    # something to tile.
    vae.tiling = Tiling() if options.size > 256 else Tiling(size=64, frames=17)
else:
    vae.policy = VAEPolicy.choose("CPU", options.memory, engine=options.engine)
shape = (1, 3, options.frames, options.size, options.size)
if options.half == "encode":
    video = engine.tensor(rng.uniform(-1, 1, shape).astype(np.float32))
    repeat(
        options.repeats,
        lambda: vae.encode(video).mean.asnumpy(),
        engine=options.engine,
        precision=options.precision,
    )
else:
    latents = engine.tensor(rng.standard_normal(vae.latent_shape(shape), np.float32))
    repeat(
        options.repeats,
        lambda: vae.decode(latents).asnumpy(),
        engine=options.engine,
        precision=options.precision,
    )
