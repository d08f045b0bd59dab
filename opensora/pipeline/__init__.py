"""Text to video as a library: encode the prompt, denoise, decode."""

from typing import TYPE_CHECKING

from opensora.lazy import lazy

if TYPE_CHECKING:
    from opensora.pipeline.call import Cancelled
    from opensora.pipeline.core import Pipeline
    from opensora.pipeline.video import Video

__all__ = ["Cancelled", "Pipeline", "Video"]

__getattr__ = lazy(__name__, {"Cancelled": "call", "Pipeline": "core", "Video": "video"})
