"""The networks: text encoder, denoiser, autoencoder, what trains and what judges it. Each is imported when it is first asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opensora.models.causal_vae import CausalVAE
    from opensora.models.discriminator import Discriminator
    from opensora.models.i3d import I3D
    from opensora.models.latte import LatteT2V
    from opensora.models.lpips import LPIPS
    from opensora.models.t5 import T5Encoder
    from opensora.models.tiling import Tiling

HOMES = {
    "CausalVAE": "causal_vae",
    "Discriminator": "discriminator",
    "I3D": "i3d",
    "LPIPS": "lpips",
    "LatteT2V": "latte",
    "T5Encoder": "t5",
    "Tiling": "tiling",
}

__all__ = ["I3D", "LPIPS", "CausalVAE", "Discriminator", "LatteT2V", "T5Encoder", "Tiling"]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
