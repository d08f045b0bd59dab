"""Training of the text-to-video transformer."""

from typing import TYPE_CHECKING

from opensora.lazy import lazy

if TYPE_CHECKING:
    from opensora.train.loss import Batch
    from opensora.train.t2v.options import TrainOptions
    from opensora.train.t2v.step import step_gradients, train_step
    from opensora.train.t2v.task import T2VTask

HOMES = {
    "TrainOptions": "options",
    "Batch": "step",
    "step_gradients": "step",
    "train_step": "step",
    "T2VTask": "task",
}

__all__ = ["Batch", "T2VTask", "TrainOptions", "step_gradients", "train_step"]

__getattr__ = lazy(__name__, HOMES)
