"""LatteT2V: the diffusion transformer of Open-Sora-Plan v1.1.0."""

from typing import TYPE_CHECKING

from opensora.lazy import lazy

if TYPE_CHECKING:
    from opensora.models.latte.config import LatteConfig
    from opensora.models.latte.model import LatteT2V

HOMES = {
    "LatteConfig": "config",
    "LatteT2V": "model",
}

__all__ = ["LatteConfig", "LatteT2V"]

__getattr__ = lazy(__name__, HOMES)
