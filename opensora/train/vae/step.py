"""One training step of the autoencoder, without the update."""

from opensora.models.causal_vae.model import CausalVAE
from opensora.nn import Tensor
from opensora.train.vae.loss import GeneratorTerms, VAELoss


def generator_step(
    vae: CausalVAE,
    loss: VAELoss,
    video: Tensor,
    step: int = 0,
    noise: Tensor | None = None,
    freeze_encoder: bool = False,
    decoder_noise: Tensor | None = None,
    recompute: bool = True,
) -> tuple[GeneratorTerms, dict[str, Tensor], Tensor]:
    """Returns (terms, gradients by weight name, reconstruction) for a video (B, 3, T, H, W).

    step: counted from 0. Before `loss.disc_start` the discriminator is not run. noise: unit noise for a
    sample of the posterior, (B, C, t, h, w); without it the latents are its mode. decoder_noise: added to the
    latents before decoding, of their shape. freeze_encoder: gradients of the decoder's weights only.
    recompute: see `CausalVAE.forward_with_tape`.
    """
    reconstruction, posterior, tape = vae.forward_with_tape(
        video, noise, freeze_encoder, decoder_noise, recompute
    )

    def last_layer(by_reconstruction: Tensor) -> Tensor:
        """The gradient by the weight of decoder.conv_out, for the adaptive weight of the adversarial term."""
        # Two blocks: the convolution, and the change of layout after it.
        gradients = tape.peek([(reconstruction, by_reconstruction)], blocks=2)
        return next(value for name, value in gradients.items() if name.endswith("weight"))

    adversarial = loss.discriminator is not None and step >= loss.disc_start
    terms = loss.generator(
        video, reconstruction, posterior.moments, step, last_layer if adversarial else None
    )
    outward = [(reconstruction, terms.by_reconstruction)]
    if not freeze_encoder:
        outward.append((posterior.moments, terms.by_moments))
    gradients, _ = tape.gradients(outward)
    return terms, gradients, reconstruction
