"""The networks: text encoder, denoiser, autoencoder, discriminator and metrics.

Each is imported when it is first used.
"""

from typing import TYPE_CHECKING

from opensora.lazy import lazy

if TYPE_CHECKING:
    from opensora.models.amt.model import AMT
    from opensora.models.causal_vae.model import CausalVAE
    from opensora.models.causal_vae.tiling import Tiling
    from opensora.models.clip.model import CLIP
    from opensora.models.discriminator import Discriminator
    from opensora.models.i3d import I3D
    from opensora.models.latte.model import LatteT2V
    from opensora.models.latte_class.model import Latte
    from opensora.models.lpips import LPIPS
    from opensora.models.rgt.model import RGT
    from opensora.models.srvgg.model import SRVGG
    from opensora.models.t5.model import T5Encoder

HOMES = {
    "AMT": "amt.model",
    "CLIP": "clip.model",
    "CausalVAE": "causal_vae.model",
    "Tiling": "causal_vae.tiling",
    "Discriminator": "discriminator",
    "I3D": "i3d",
    "Latte": "latte_class.model",
    "LatteT2V": "latte.model",
    "LPIPS": "lpips",
    "RGT": "rgt.model",
    "SRVGG": "srvgg.model",
    "T5Encoder": "t5.model",
}

__all__ = [
    "AMT",
    "CLIP",
    "I3D",
    "LPIPS",
    "RGT",
    "SRVGG",
    "CausalVAE",
    "Discriminator",
    "Latte",
    "LatteT2V",
    "T5Encoder",
    "Tiling",
]

__getattr__ = lazy(__name__, HOMES)
