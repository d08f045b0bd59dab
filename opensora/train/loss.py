"""The training loss of a denoiser: a batch, the loss terms and their gradient (Open-Sora-Plan v1.1.0)."""

from collections.abc import Callable, Mapping
from typing import TypedDict

import numpy as np

from opensora.diffusion.loss import loss_terms
from opensora.engine import Engine
from opensora.engine.block import Block, Weights
from opensora.nn import Tensor
from opensora.parallel.mesh import Mesh
from opensora.runtime import mindspore

ms = mindspore()


class Batch(TypedDict, total=False):
    """Inputs of a step, arrays of the host or the device. From text_embeds on they may be absent."""

    latents: Tensor  # (B, C, T+N, H, W), unit variance
    timestep: Tensor  # (B,) whole numbers below 1000
    noise: Tensor  # as latents
    text_embeds: Tensor  # (B, L, D) or (B, 1+N, L, D)
    labels: np.ndarray  # (B,) of classes, in place of a text
    text_mask: Tensor  # (B, L) or (B, 1+N, L), 1 = keep
    latent_mask: Tensor  # (B, T+N, H, W), 1 = keep
    num_images: int  # N, the images after the video on the time axis
    share: Tensor  # (B,) fraction of each sample's loss in these frames; other devices have the rest
    weight: Tensor  # (B,) weight of each sample's loss
    temporal: bool  # False skips the temporal blocks, for batches of images


OwnLoss = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""`loss(output, latents, noise, timestep, latent_mask)`: the loss of each sample, (B,), in MindSpore's
operators. output: float32 (B, 2C, T+N, H, W); the others are as in `Batch`, the mask None if all is kept."""


def _loss(
    w: Weights,
    output: Tensor,
    latents: Tensor,
    noise: Tensor,
    coefficients: Tensor,
    latent_mask: Tensor,
    share: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, mse, vb), (B,) each."""
    loss, mse, vb = loss_terms(output, latents, noise, coefficients, latent_mask)
    if share is not None:
        loss, mse, vb = loss * share, mse * share, vb * share
    return loss, mse, vb


_LOSS = Block(_loss)


def loss_gradient(
    engine: Engine, inputs: tuple[Tensor, ...], weight: np.ndarray | None, loss_scale: float
) -> tuple[dict[str, Tensor], Tensor]:
    """(loss terms, gradient of the scaled mean loss by the model's output, the first of `inputs`)."""
    tape = engine.tape({})
    loss, mse, vb = tape(_LOSS, "", *inputs)
    weights = np.ones(loss.shape, np.float32) if weight is None else weight
    by_loss = ms.Tensor(weights * np.float32(loss_scale / len(weights)))
    _, (by_output,) = tape.gradients([(loss, by_loss)], wanted=[inputs[0]])
    return {"loss": loss if weight is None else loss * ms.Tensor(weight), "mse": mse, "vb": vb}, by_output


def own_loss_gradient(
    function: OwnLoss,
    inputs: tuple[Tensor, ...],
    timestep: np.ndarray,
    weight: np.ndarray | None,
    loss_scale: float,
) -> tuple[Tensor, Tensor]:
    """(loss (B,), gradient as of `loss_gradient`). inputs: those of `loss_gradient`.

    Run operator by operator: the framework can compile only functions whose source is in a file.
    """
    output, latents, noise, _, latent_mask, share = inputs

    def weighted(output: Tensor) -> Tensor:
        loss = function(output.astype(ms.float32), latents, noise, ms.Tensor(timestep), latent_mask)
        found = tuple(loss.shape) if isinstance(loss, ms.Tensor) else type(loss).__name__
        if found != timestep.shape:
            raise ValueError(
                f"the loss function returned {found}: return a tensor with a value for each sample, "
                f"{timestep.shape}"
            )
        for factor in (share, on_device(weight)):
            loss = loss if factor is None else loss * factor
        return loss

    # A faulty function fails here: an error while the framework records would leave it recording.
    loss = weighted(output)
    return loss, ms.grad(lambda output: ms.ops.mean(weighted(output)) * loss_scale)(output)


def gather_terms(
    mesh: Mesh, terms: Mapping[str, np.ndarray], timestep: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Loss terms and timesteps, (B,) each, of all processes in order.

    Processes that share samples add their terms.
    """
    own = {"timestep": timestep.tolist(), **{name: value.tolist() for name, value in terms.items()}}
    all_ranks = mesh.world.agree(own)
    teams = [all_ranks[first : first + mesh.team.size] for first in range(0, len(all_ranks), mesh.team.size)]
    gathered = {
        name: np.concatenate([np.sum([rank[name] for rank in team], 0) for team in teams]) for name in terms
    }
    return gathered, np.concatenate([team[0]["timestep"] for team in teams])


def mean_terms(terms: Mapping[str, np.ndarray], timestep: np.ndarray) -> dict[str, float]:
    """Means of loss terms (B,), and of mse by quarter of the timesteps (B,).

    The quarters are mse_q1 (least noise) to mse_q4; one without a sample is absent.
    """
    means = {name: float(value.mean()) for name, value in terms.items()}
    quarters = timestep // 250
    return means | {
        f"mse_q{i + 1}": float(terms["mse"][quarters == i].mean()) for i in range(4) if (quarters == i).any()
    }


def on_device(value: Tensor | np.ndarray | None) -> Tensor:
    """Arrays as tensors; everything else as it is."""
    return ms.Tensor(value) if isinstance(value, np.ndarray) else value
