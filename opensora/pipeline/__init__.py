"""Text to video as a library: encode the prompt, denoise, decode."""

from typing import TYPE_CHECKING

from opensora.lazy import lazy

if TYPE_CHECKING:
    from opensora.pipeline.core import Pipeline

__all__ = ["Pipeline"]

__getattr__ = lazy(__name__, {"Pipeline": "core"})
