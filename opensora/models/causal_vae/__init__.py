"""CausalVAE: the causal video autoencoder of Open-Sora-Plan v1.1.0."""

from typing import TYPE_CHECKING

from opensora.lazy import lazy

if TYPE_CHECKING:
    from opensora.models.causal_vae.config import CausalVAEConfig
    from opensora.models.causal_vae.model import CausalVAE
    from opensora.models.causal_vae.posterior import gaussian_kl
    from opensora.models.causal_vae.tiling import Tiling

HOMES = {
    "CausalVAEConfig": "config",
    "CausalVAE": "model",
    "gaussian_kl": "posterior",
    "Tiling": "tiling",
}

__all__ = ["CausalVAE", "CausalVAEConfig", "Tiling", "gaussian_kl"]

__getattr__ = lazy(__name__, HOMES)
