"""Training of class-conditional and unconditional Latte."""

from typing import TYPE_CHECKING

from opensora.lazy import lazy

if TYPE_CHECKING:
    from opensora.train.latte_class.options import TrainClassOptions
    from opensora.train.latte_class.step import step_gradients
    from opensora.train.latte_class.task import ClassTask

HOMES = {
    "TrainClassOptions": "options",
    "step_gradients": "step",
    "ClassTask": "task",
}

__all__ = ["ClassTask", "TrainClassOptions", "step_gradients"]

__getattr__ = lazy(__name__, HOMES)
