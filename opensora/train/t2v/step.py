"""One training step: noise the latents, predict, walk back, update (Open-Sora-Plan v1.1.0)."""

from typing import Any, cast

from opensora.diffusion import GaussianDiffusion
from opensora.models.latte.model import LatteT2V
from opensora.nn import Tensor
from opensora.nn.exchange import FrameExchange
from opensora.parallel.collectives import ProcessGroup
from opensora.parallel.sequence import ShardedFrameExchange, local_batch
from opensora.runtime import mindspore
from opensora.train.loss import Batch, OwnLoss, loss_gradient, on_device, own_loss_gradient
from opensora.train.optim import Optimizer, clip_scale

ms = mindspore()


def step_gradients(
    model: LatteT2V,
    batch: Batch,
    loss_scale: float = 1.0,
    exchange: FrameExchange | None = None,
    num_no_recompute: int = 0,
    loss: OwnLoss | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """(loss terms, gradients by weight name, gradient of text_embeds) of the mean loss of a batch.

    The terms `loss`, `mse` and `vb` are (B,). Gradients are those of the loss times `loss_scale`, in the
    number format of the model's weights. exchange: as in a call of the model, for a batch with some of the
    frames; terms and gradients are then summands, to be added over the devices. num_no_recompute: number of
    last layers that keep their activations: faster, but more memory. loss: in place of mse + vb.
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
    weight = batch.get("weight")
    terms, by_output = loss_gradient(model.engine, inputs, weight, loss_scale)
    if loss is not None:
        terms["loss"], by_output = own_loss_gradient(loss, inputs, timestep, weight, loss_scale)
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


def split_frames(batch: Batch, group: ProcessGroup) -> tuple[Batch, FrameExchange | None]:
    """This process's frames of a batch, and the model's exchange with the group (None for one process)."""
    if group.size == 1:
        return batch, None
    arrays = {name: _array(value) for name, value in batch.items()}
    frames = arrays["latents"].shape[2] - batch["num_images"]
    return cast(Batch, local_batch(arrays, group)), ShardedFrameExchange(group, frames)


def _array(value: Any) -> Any:
    return value.asnumpy() if isinstance(value, ms.Tensor) else value
