"""Masks of latents, 1 = keep, as biases of the scores of attention."""

from collections.abc import Sequence

from opensora.engine import Engine
from opensora.models.latte import blocks
from opensora.nn import Tensor


def latent_biases(
    engine: Engine, mask: Tensor, shape: Sequence[int], patch_size: int, compress_factor: int = 1
) -> tuple[Tensor, Tensor]:
    """The bias of the patches (B*F, S), and that of compressed keys (B*F, S/factor^2).

    mask: (B, F, H, W), or of patches (B*F, S) if no keys are compressed. shape: of the latents,
    (B, C, F, H, W). Raises ValueError for a mask of another shape.
    """
    batch, _, frames, height, width = shape
    of_patches = batch * frames, (height // patch_size) * (width // patch_size)
    of_latents = batch, frames, height, width
    if tuple(mask.shape) == of_patches and compress_factor == 1:
        bias = engine.call(blocks.key_bias, {}, mask)
        return bias, bias
    if tuple(mask.shape) != of_latents:
        raise ValueError(
            f"latent_mask has the shape {tuple(mask.shape)}: it must be {of_latents}, one number "
            f"for each latent, or {of_patches}, one for each patch, which compressed keys do not allow"
        )
    kept = compressed = engine.call(blocks.latent_bias, {}, mask, patch_size)
    if compress_factor != 1:
        compressed = engine.call(blocks.latent_bias, {}, mask, patch_size * compress_factor)
    return kept, compressed
