"""One training step: noise the latents, predict, walk back, update (Open-Sora-Plan v1.1.0)."""

from collections.abc import Mapping
from typing import Any, TypedDict, cast

import numpy as np

from opensora.diffusion import GaussianDiffusion
from opensora.diffusion.loss import loss_terms
from opensora.engine.block import Block, Weights
from opensora.models.latte.model import LatteT2V
from opensora.nn import Tensor
from opensora.nn.exchange import FrameExchange
from opensora.parallel.collectives import ProcessGroup
from opensora.parallel.mesh import Mesh
from opensora.parallel.sequence import ShardedFrameExchange, local_batch
from opensora.runtime import mindspore
from opensora.train.optim import Optimizer, clip_scale

ms = mindspore()
ops = ms.ops


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


def step_gradients(
    model: LatteT2V,
    batch: Batch,
    loss_scale: float = 1.0,
    exchange: FrameExchange | None = None,
    num_no_recompute: int = 0,
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """(loss terms, gradients by weight name, gradient of text_embeds) of the mean loss of a batch.

    The terms `loss`, `mse` and `vb` are (B,). Gradients are those of the loss times `loss_scale`, in the
    number format of the model's weights. exchange: as in a call of the model, for a batch with some of the
    frames; terms and gradients are then summands, to be added over the devices. num_no_recompute: number of
    last layers that keep their activations: faster, but more memory.
    """
    diffusion = GaussianDiffusion()
    latents, noise = on_device(batch["latents"]), on_device(batch["noise"])  # (B, C, T+N, H, W)
    text_embeds, latent_mask = on_device(batch["text_embeds"]), on_device(batch.get("latent_mask"))
    timestep = _array(batch["timestep"])
    output, tape = model.forward_with_tape(  # output: (B, 2C, T+N, H, W)
        diffusion.q_sample(latents, timestep, noise),
        timestep,
        text_embeds,
        on_device(batch.get("text_mask")),
        latent_mask,
        num_images=batch.get("num_images", 0),
        temporal=batch.get("temporal", True),
        exchange=exchange,
        num_no_recompute=num_no_recompute,
    )
    coefficients = diffusion.loss_coefficients(timestep)
    inputs = (output, latents, noise, coefficients, latent_mask, on_device(batch.get("share")))
    terms, by_output = loss_gradient(inputs, batch.get("weight"), loss_scale)
    gradients, (by_text,) = tape.gradients([(output, by_output)], wanted=[text_embeds])
    return terms, gradients, by_text


def train_step(
    model: LatteT2V, batch: Batch, optimizer: Optimizer
) -> tuple[dict[str, Tensor], dict[str, Tensor], float]:
    """Update the model. Returns (loss terms (B,), clipped gradients, global norm before clipping)."""
    assert isinstance(model.weights, dict)
    terms, gradients, _ = step_gradients(model, batch)
    norm, _ = optimizer.update(model.weights, gradients)
    scale = clip_scale(norm, optimizer.options.max_grad_norm)
    return terms, {name: gradient * scale for name, gradient in gradients.items()}, norm


def _loss(
    w: Weights,
    output: Tensor,
    latents: Tensor,
    noise: Tensor,
    coefficients: Tensor,
    latent_mask: Tensor,
    share: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(mean loss, loss (B,), mse (B,), vb (B,))."""
    loss, mse, vb = loss_terms(output, latents, noise, coefficients, latent_mask)
    if share is not None:
        loss, mse, vb = loss * share, mse * share, vb * share
    return ops.mean(loss), loss, mse, vb


_LOSS = Block(_loss)


def loss_gradient(
    inputs: tuple[Tensor, ...], weight: np.ndarray | None, loss_scale: float
) -> tuple[dict[str, Tensor], Tensor]:
    """(loss terms, gradient of the scaled mean loss by the model's output, the first of `inputs`)."""
    mean, loss, mse, vb = _LOSS({}, *inputs)
    zeros = ops.zeros_like(mse), ops.zeros_like(vb)
    if weight is None:
        outward = (ops.full_like(mean, loss_scale), ops.zeros_like(loss), *zeros)
    else:
        weights = ms.Tensor(weight)
        outward = (ops.zeros_like(mean), weights * (loss_scale / len(weight)), *zeros)
        loss = loss * weights
    _, (by_output, *_) = _LOSS.gradient({}, inputs, outward)
    return {"loss": loss, "mse": mse, "vb": vb}, by_output


def split_frames(batch: Batch, group: ProcessGroup) -> tuple[Batch, FrameExchange | None]:
    """This process's frames of a batch, and the model's exchange with the group (None for one process)."""
    if group.size == 1:
        return batch, None
    arrays = {name: _array(value) for name, value in batch.items()}
    frames = arrays["latents"].shape[2] - batch["num_images"]
    return cast(Batch, local_batch(arrays, group)), ShardedFrameExchange(group, frames)


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


def _array(value: Any) -> Any:
    return value.asnumpy() if isinstance(value, ms.Tensor) else value
