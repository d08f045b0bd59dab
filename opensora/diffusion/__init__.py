"""Noise schedule, training loss, samplers and guidance. Only the loss imports MindSpore, on first use."""

from typing import TYPE_CHECKING, Any

from opensora.diffusion.samplers import SAMPLERS, Sampler, make_sampler

if TYPE_CHECKING:
    from opensora.diffusion.loss import GaussianDiffusion

__all__ = ["SAMPLERS", "GaussianDiffusion", "Sampler", "make_sampler"]


def __getattr__(name: str) -> Any:
    if name == "GaussianDiffusion":
        from opensora.diffusion.loss import GaussianDiffusion

        return GaussianDiffusion
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
