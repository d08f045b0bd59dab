"""One training step of text-to-video: noise a batch of latents, predict, walk back, update (Open-Sora-Plan v1.1.0)."""

from typing import Any, TypedDict

import numpy as np

from opensora.diffusion import GaussianDiffusion
from opensora.diffusion.loss import loss_terms
from opensora.engine.block import Block
from opensora.models.latte.model import LatteT2V
from opensora.nn.exchange import FrameExchange
from opensora.runtime import mindspore
from opensora.train.optim import AdamW, clip_scale

ms = mindspore()
ops = ms.ops


class Batch(TypedDict, total=False):
    """What a step is computed from. Arrays of the host or of the device; the masks and num_images may be absent."""

    latents: Any  # (B, 4, T+N, H, W), scaled to unit variance
    timestep: Any  # (B,) whole numbers below 1000
    noise: Any  # as latents
    text_embeds: Any  # (B, L, D) or (B, 1+N, L, D)
    text_mask: Any  # (B, L) or (B, 1+N, L), 1 = keep
    latent_mask: Any  # (B, T+N, H, W), 1 = keep
    num_images: int
    share: (
        Any  # (B,) the part of a sample's loss that these frames make up, where others are on other devices
    )
    weight: Any  # (B,) what each sample's loss counts
    temporal: bool  # False leaves out the blocks that join frames, for pictures alone


def _weighted_loss(
    weights: Any, output: Any, latents: Any, noise: Any, coefficients: Any, mask: Any, share: Any
) -> Any:
    loss, mse, vb = loss_terms(output, latents, noise, coefficients, mask)
    if share is not None:
        loss, mse, vb = loss * share, mse * share, vb * share
    return ops.mean(loss), loss, mse, vb


_loss = Block(_weighted_loss)


def step_gradients(
    model: LatteT2V,
    batch: Batch,
    loss_scale: float = 1.0,
    exchange: FrameExchange | None = None,
    num_no_recompute: int = 0,
) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """(loss terms, gradients by weight, gradient by text_embeds) of the mean loss over a batch; terms are `loss`, `mse`, `vb`, (B,).

    The gradients are those of the loss times `loss_scale`, in the number format of the model's weights. exchange: as in a call of the
    model, for a batch of some of the frames; terms and gradients are then this device's summands. num_no_recompute: how many layers, the
    last ones, keep what they compute: less time, more memory, the same numbers.
    """
    diffusion = GaussianDiffusion()
    latents, noise, text_embeds = (
        _tensor(batch["latents"]),
        _tensor(batch["noise"]),
        _tensor(batch["text_embeds"]),
    )
    timestep = np.asarray(
        batch["timestep"].asnumpy() if isinstance(batch["timestep"], ms.Tensor) else batch["timestep"]
    )
    mask = _tensor(batch.get("latent_mask"))
    noised = diffusion.q_sample(latents, timestep, noise)
    output, tape = model.forward_with_tape(
        noised,
        timestep,
        text_embeds,
        _tensor(batch.get("text_mask")),
        mask,
        num_images=batch.get("num_images", 0),
        temporal=batch.get("temporal", True),
        exchange=exchange,
        num_no_recompute=num_no_recompute,
    )
    inputs = (
        output,
        latents,
        noise,
        diffusion.loss_coefficients(timestep),
        mask,
        _tensor(batch.get("share")),
    )
    mean, loss, mse, vb = _loss({}, *inputs)
    if "weight" in batch:
        weight = ms.Tensor(batch["weight"])
        outward = (
            ops.zeros_like(mean),
            weight * (loss_scale / len(timestep)),
            ops.zeros_like(mse),
            ops.zeros_like(vb),
        )
        loss = loss * weight
    else:
        outward = (
            ops.full_like(mean, loss_scale),
            ops.zeros_like(loss),
            ops.zeros_like(mse),
            ops.zeros_like(vb),
        )
    _, by_input = _loss.gradient({}, inputs, outward)
    gradients, (by_text,) = tape.gradients([(output, by_input[0])], wanted=[text_embeds])
    return {"loss": loss, "mse": mse, "vb": vb}, gradients, by_text


def train_step(
    model: LatteT2V, batch: Batch, optimizer: AdamW
) -> tuple[dict[str, Any], dict[str, Any], float]:
    """One step in place: (loss terms, gradients as the optimizer took them, their global norm before clipping)."""
    terms, gradients, _ = step_gradients(model, batch)
    norm, _ = optimizer.update(model.weights, gradients)
    scale = clip_scale(norm, optimizer.options.max_grad_norm)
    return terms, {name: gradient * scale for name, gradient in gradients.items()}, norm


def _tensor(value: Any) -> Any:
    return ms.Tensor(value) if isinstance(value, np.ndarray) else value
