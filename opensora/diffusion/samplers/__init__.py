"""Samplers by name: the reference's ten, and two that need fewer steps."""

import difflib
from collections.abc import Callable

from opensora.diffusion.samplers.base import Sampler, quadratic_timesteps, sigmas_at, train_alphas_cumprod
from opensora.diffusion.samplers.ddim import DDIM
from opensora.diffusion.samplers.ddpm import DDPM
from opensora.diffusion.samplers.deis import DEIS
from opensora.diffusion.samplers.dpm import DPMSolverMultistep, DPMSolverSinglestep, upstream_multistep
from opensora.diffusion.samplers.euler import Euler, EulerAncestral
from opensora.diffusion.samplers.heun import Heun
from opensora.diffusion.samplers.kdpm2 import KDPM2Ancestral
from opensora.diffusion.samplers.pndm import PNDM
from opensora.diffusion.samplers.unipc import UniPC
from opensora.diffusion.schedule import TRAIN_STEPS

__all__ = ["SAMPLERS", "Sampler", "make_sampler"]


def _on_quadratic_timesteps(solver: type[DPMSolverMultistep]) -> Callable[[int, bool], Sampler]:
    def build(steps: int, upstream: bool) -> Sampler:
        timesteps = quadratic_timesteps(steps)
        return solver(timesteps, sigmas_at(timesteps, train_alphas_cumprod()))

    return build


SAMPLERS: dict[str, Callable[[int, bool], Sampler]] = {
    "DDIM": DDIM,
    "EulerDiscrete": Euler,
    "DDPM": DDPM,
    "DPMSolverMultistep": upstream_multistep,
    "DPMSolverSinglestep": DPMSolverSinglestep,
    "PNDM": PNDM,
    "HeunDiscrete": Heun,
    "EulerAncestralDiscrete": EulerAncestral,
    "DEISMultistep": DEIS,
    "KDPM2AncestralDiscrete": KDPM2Ancestral,
    "DPM++2M": _on_quadratic_timesteps(DPMSolverMultistep),
    "UniPC": _on_quadratic_timesteps(UniPC),
}


def make_sampler(name: str, steps: int, upstream: bool = False) -> Sampler:
    """A sampler of `steps` steps on the training schedule, without clipping.

    upstream: take the defaults of the reference's constructors where they differ from the training schedule.
    DDIM and DDPM then clip the predicted data to [-1, 1]; Heun and KDPM2Ancestral use other betas. Raises
    ValueError for an unknown name, and for steps outside 1 to 1000.
    """
    if name not in SAMPLERS:
        close = difflib.get_close_matches(name, SAMPLERS, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"sampler {name!r} is unknown: {hint}choose one of {', '.join(SAMPLERS)}")
    if not 1 <= steps <= TRAIN_STEPS:
        raise ValueError(f"{steps} sampling steps are not possible: choose 1 to {TRAIN_STEPS}")
    return SAMPLERS[name](steps, upstream)
