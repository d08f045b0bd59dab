"""Text to video on MindSpore: `from opensora import Pipeline`. MindSpore is imported only when Pipeline is asked for."""

from typing import TYPE_CHECKING, Any

import opensora.runtime  # noqa: F401  prepares the environment before MindSpore can be imported

if TYPE_CHECKING:
    from opensora.pipeline import Pipeline

__all__ = ["Pipeline"]


def __getattr__(name: str) -> Any:
    if name == "Pipeline":
        from opensora.pipeline import Pipeline

        return Pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
