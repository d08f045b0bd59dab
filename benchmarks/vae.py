"""The autoencoder at the release's width with random weights: one encode of 9x128x128 frames, or one decode to as many."""

import sys

import numpy as np

from opensora.models.causal_vae import CausalVAE, CausalVAEConfig
from opensora.runtime import mindspore

rng = np.random.default_rng(0)
ms = mindspore()
vae = CausalVAE.initialise(CausalVAEConfig(), rng)
if sys.argv[1] == "encode":
    vae.encode(ms.Tensor(rng.uniform(-1, 1, (1, 3, 9, 128, 128)).astype(np.float32))).mean.asnumpy()
else:
    vae.decode(ms.Tensor(rng.standard_normal((1, 4, 3, 16, 16)).astype(np.float32))).asnumpy()
