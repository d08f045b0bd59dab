"""The T5 encoder, which turns a prompt into an embedding."""

from typing import TYPE_CHECKING

from opensora.lazy import lazy

if TYPE_CHECKING:
    from opensora.models.t5.config import T5Config
    from opensora.models.t5.model import T5Encoder

HOMES = {
    "T5Config": "config",
    "T5Encoder": "model",
}

__all__ = ["T5Config", "T5Encoder"]

__getattr__ = lazy(__name__, HOMES)
