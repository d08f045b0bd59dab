"""CLIP, which compares pictures with texts."""

from typing import TYPE_CHECKING

from opensora.lazy import lazy

if TYPE_CHECKING:
    from opensora.models.clip.model import CLIP

__all__ = ["CLIP"]

__getattr__ = lazy(__name__, {"CLIP": "model"})
