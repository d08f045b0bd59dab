"""The autoencoder with random weights: one encode or decode, by default of 9x128x128 frames at the release's
width.

python -m benchmarks.vae decode --frames 65 --memory chunked
"""

import argparse

import numpy as np

from opensora.models.causal_vae.model import CausalVAE, CausalVAEConfig
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.models.causal_vae.tiling import Tiling
from opensora.runtime import mindspore

parser = argparse.ArgumentParser()
parser.add_argument("half", choices=("encode", "decode"))
parser.add_argument("--frames", type=int, default=9)
parser.add_argument("--size", type=int, default=128)
parser.add_argument("--hidden_size", type=int, default=128)
parser.add_argument("--memory", choices=("auto", "exact", "chunked", "tiled"), default="auto")
options = parser.parse_args()

rng = np.random.default_rng(0)
ms = mindspore()
vae = CausalVAE.initialise(CausalVAEConfig(hidden_size=options.hidden_size), rng)
if options.memory == "tiled":
    # Where the reference's tiles of 256 pixels and 65 frames hold it all, a quarter of them, so that there is
    # something to tile.
    vae.tiling = Tiling() if options.size > 256 else Tiling(size=64, frames=17)
else:
    vae.policy = VAEPolicy.choose("CPU", options.memory)
if options.half == "encode":
    vae.encode(
        ms.Tensor(rng.uniform(-1, 1, (1, 3, options.frames, options.size, options.size)).astype(np.float32))
    ).mean.asnumpy()
else:
    shape = vae.latent_shape((1, 3, options.frames, options.size, options.size))
    vae.decode(ms.Tensor(rng.standard_normal(shape).astype(np.float32))).asnumpy()
