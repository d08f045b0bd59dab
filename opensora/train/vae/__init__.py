"""Training of the video autoencoder."""

from typing import TYPE_CHECKING

from opensora.lazy import lazy

if TYPE_CHECKING:
    from opensora.train.vae.loss import VAELoss
    from opensora.train.vae.options import TrainVAEOptions
    from opensora.train.vae.step import generator_step
    from opensora.train.vae.task import VAETask

HOMES = {
    "VAELoss": "loss",
    "TrainVAEOptions": "options",
    "generator_step": "step",
    "VAETask": "task",
}

__all__ = ["TrainVAEOptions", "VAELoss", "VAETask", "generator_step"]

__getattr__ = lazy(__name__, HOMES)
