"""The transformer at the release's width with 4 + 4 layers, random weights: a forward without gradients.

Batch 2, latents 4x5x32x32, 300 tokens, whose keys and values are computed once.

    python -m benchmarks.forward --engine openvino --precision bf16
"""

import argparse

import numpy as np

from benchmarks.repeat import add_options, repeat
from opensora.engine import open_engine
from opensora.models.latte.config import LatteConfig, weight_specs
from opensora.models.latte.model import LatteT2V

parser = argparse.ArgumentParser()
parser.add_argument("--layers", type=int, default=4)
parser.add_argument("--batch", type=int, default=2)
add_options(parser)
options = parser.parse_args()
labels = {"engine": options.engine, "precision": options.precision}

rng = np.random.default_rng(0)
config = LatteConfig(num_layers=options.layers, sample_size=(32, 32), video_length=5)
engine = open_engine(options.engine, options.precision)
weights = engine.weights({name: spec.draw(rng) for name, spec in weight_specs(config).items()})
model = LatteT2V(config, weights, engine)
latents = rng.standard_normal((options.batch, 4, 5, 32, 32), np.float32)
text = rng.standard_normal((options.batch, 300, 4096), np.float32)
timestep = np.full(options.batch, 500.0, np.float32)
keys_values = model.text_keys_values(text)
repeat(
    options.repeats,
    lambda: model(latents, timestep, None, text_kv=keys_values).asnumpy(),
    engine=options.engine,
    precision=options.precision,
)
