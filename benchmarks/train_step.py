"""A training step at the release's width with random weights: loss and gradients.

python -m benchmarks.train_step transformer --keep 4 --engine openvino
python -m benchmarks.train_step vae

The transformer has 4 + 4 layers, batch 1, latents 4x5x32x32, 300 tokens; `--keep` of its layers keep their
activations. The autoencoder trains on a clip of 9x64x64 by squared error and KL. Prints a line of JSON:
seconds of each step, the first of which compiles, and the peak memory.
"""

import argparse
from collections.abc import Callable

import mindspore as ms
import numpy as np

from benchmarks.repeat import repeat
from opensora.engine import ENGINES, Engine, choose_training_engine
from opensora.models.causal_vae.config import CausalVAEConfig
from opensora.models.causal_vae.model import CausalVAE
from opensora.models.latte.model import LatteConfig, LatteT2V
from opensora.train.t2v import Batch, step_gradients
from opensora.train.vae.loss import VAELoss
from opensora.train.vae.step import generator_step

rng = np.random.default_rng(0)


def transformer(engine: Engine, keep: int) -> Callable[[], object]:
    model = LatteT2V.initialise(LatteConfig(num_layers=4, sample_size=(32, 32), video_length=5), rng)
    model.engine = engine
    batch = Batch(
        latents=rng.standard_normal((1, 4, 5, 32, 32), np.float32),
        noise=rng.standard_normal((1, 4, 5, 32, 32), np.float32),
        timestep=np.array([500]),
        text_embeds=rng.standard_normal((1, 300, 4096), np.float32),
    )

    def step() -> None:
        terms, gradients, _ = step_gradients(model, batch, num_no_recompute=keep)
        terms["loss"].asnumpy()
        gradients["caption_projection.linear_1.weight"].asnumpy()  # the last that is computed

    return step


def autoencoder(engine: Engine) -> Callable[[], object]:
    vae = CausalVAE.initialise(CausalVAEConfig(), rng)
    vae.engine = engine
    video = ms.Tensor(rng.uniform(-1, 1, (1, 3, 9, 64, 64)).astype(np.float32))
    noise = ms.Tensor(rng.standard_normal(vae.latent_shape(video.shape), np.float32))
    loss = VAELoss(squared_weight=1.0)

    def step() -> None:
        _, gradients, _ = generator_step(vae, loss, video, noise=noise)
        gradients["encoder.conv_in.weight"].asnumpy()  # the last that is computed

    return step


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("transformer", "vae"))
    parser.add_argument("--engine", choices=ENGINES, default="openvino")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--keep", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=4)
    options = parser.parse_args()
    engine = choose_training_engine(options.engine, options.precision)
    step = transformer(engine, options.keep) if options.what == "transformer" else autoencoder(engine)
    repeat(options.repeats, step, what=options.what, engine=options.engine, keep=str(options.keep))


if __name__ == "__main__":
    main()
