"""AMT, which interpolates frames."""

from typing import TYPE_CHECKING

from opensora.lazy import lazy

if TYPE_CHECKING:
    from opensora.models.amt.model import AMT

__all__ = ["AMT"]

__getattr__ = lazy(__name__, {"AMT": "model"})
