"""One training step of a class-conditional Latte: noise the latents, predict, walk back."""

from opensora.diffusion import GaussianDiffusion
from opensora.engine.block import as_array
from opensora.models.latte_class.model import Latte
from opensora.nn import Tensor
from opensora.train.loss import Batch, loss_gradient, on_device


def step_gradients(
    model: Latte, batch: Batch, loss_scale: float = 1.0, num_no_recompute: int = 0
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(loss terms, gradients by weight name) of the mean loss of a batch with "labels".

    The terms `loss`, `mse` and `vb` are (B,). Gradients are those of the loss times `loss_scale`.
    """
    diffusion = GaussianDiffusion()
    latents, noise = on_device(batch["latents"]), on_device(batch["noise"])  # (B, C, T+N, H, W)
    timestep, latent_mask = as_array(batch["timestep"]), on_device(batch.get("latent_mask"))
    output, tape = model.forward_with_tape(  # output: (B, 2C, T+N, H, W)
        diffusion.q_sample(latents, timestep, noise),
        timestep,
        batch.get("labels"),
        latent_mask,
        batch.get("num_images", 0),
        num_no_recompute=num_no_recompute,
    )
    coefficients = diffusion.loss_coefficients(timestep)
    inputs = (output, latents, noise, coefficients, latent_mask, None)
    terms, by_output = loss_gradient(model.engine, inputs, batch.get("weight"), loss_scale)
    gradients, _ = tape.gradients([(output, by_output)])
    return terms, gradients
