"""Text to video: encode the prompt, denoise, decode. `Pipeline` is for Python, `generate` for the command line."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opensora.pipeline.command import generate
    from opensora.pipeline.core import Pipeline

__all__ = ["Pipeline", "generate"]


def __getattr__(name: str) -> Any:
    if name == "Pipeline":
        from opensora.pipeline.core import Pipeline

        return Pipeline
    if name == "generate":
        from opensora.pipeline.command import generate

        return generate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
