"""RGT, which enlarges images."""

from typing import TYPE_CHECKING

from opensora.lazy import lazy

if TYPE_CHECKING:
    from opensora.models.rgt.model import RGT

__all__ = ["RGT"]

__getattr__ = lazy(__name__, {"RGT": "model"})
