"""Latte for videos of classes, or of no class: the class-conditional and unconditional transformers."""

from typing import TYPE_CHECKING

from opensora.lazy import lazy

if TYPE_CHECKING:
    from opensora.models.latte_class.config import LatteClassConfig
    from opensora.models.latte_class.model import Latte

HOMES = {
    "LatteClassConfig": "config",
    "Latte": "model",
}

__all__ = ["Latte", "LatteClassConfig"]

__getattr__ = lazy(__name__, HOMES)
