"""A training step of LatteT2V at the release's width, 4 + 4 layers, random weights: loss and gradients.

Batch 1, latents 4x5x32x32, 300 tokens. The argument is how many layers keep what they compute
(num_no_recompute), 0 unless given. Prints the seconds of the fastest of three steps after the one that
compiles, and the processor seconds of that step.
"""

import json
import sys
import time

import numpy as np

from opensora.models.latte.model import LatteConfig, LatteT2V
from opensora.train.t2v.step import Batch, step_gradients

rng = np.random.default_rng(0)
model = LatteT2V.initialise(LatteConfig(num_layers=4, sample_size=(32, 32), video_length=5), rng)
batch = Batch(
    latents=rng.standard_normal((1, 4, 5, 32, 32), np.float32),
    noise=rng.standard_normal((1, 4, 5, 32, 32), np.float32),
    timestep=np.array([500]),
    text_embeds=rng.standard_normal((1, 300, 4096), np.float32),
)
keeping = int(sys.argv[1]) if len(sys.argv) > 1 else 0
times = []
for _ in range(4):
    start, processor = time.perf_counter(), time.process_time()
    terms, gradients, _ = step_gradients(model, batch, num_no_recompute=keeping)
    (
        terms["loss"].asnumpy(),
        gradients["caption_projection.linear_1.weight"].asnumpy(),
    )  # the last that is computed
    times.append((time.perf_counter() - start, time.process_time() - processor))
    del terms, gradients
seconds, processor = min(times[1:])
print(json.dumps({"step_seconds": round(seconds, 2), "step_processor_seconds": round(processor, 2)}))
