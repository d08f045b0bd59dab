"""Cost of class-conditional Latte: floating-point operations and memory. Loads without MindSpore."""

from opensora.models.flops import attention_scores, linear
from opensora.models.geometry import Size
from opensora.models.latte import cost as latte_cost
from opensora.models.latte.config import TIMESTEP_CHANNELS
from opensora.models.latte.cost import STEP_FORWARDS
from opensora.models.latte_class.config import LatteClassConfig
from opensora.models.latte_class.weights import as_t2v


def forward_flops(config: LatteClassConfig, latent_size: Size, *, batch: int = 1, num_images: int = 0) -> int:
    """Operations of one forward on latents (batch, C, T + num_images, h, w). latent_size: (T, h, w)."""
    frames, height, columns = latent_size
    width, patch = config.width, config.patch_size**2
    tokens = (frames + num_images) * height * columns // patch
    ends = linear(tokens, (config.in_channels + config.out_channels) * patch, width)
    condition = linear(1, TIMESTEP_CHANNELS + width, width)
    modulation = linear(1, width, 6 * width)
    if config.variant == "single":
        ends += condition + modulation
    elif config.variant == "dit":
        ends += condition + 2 * config.num_layers * modulation
    else:
        ends += 2 * config.num_layers * (condition + modulation)
    return batch * (ends + config.num_layers * _layer_flops(config, latent_size, num_images))


def step_flops(
    config: LatteClassConfig,
    latent_size: Size,
    *,
    batch: int = 1,
    num_images: int = 0,
    num_no_recompute: int = 0,
) -> int:
    """Operations of a training step, with the arguments of `forward_flops`.

    num_no_recompute: the number of layers that save their activations.
    """
    saved = min(num_no_recompute, config.num_layers) * _layer_flops(config, latent_size, num_images)
    forward = forward_flops(config, latent_size, batch=batch, num_images=num_images)
    return STEP_FORWARDS * forward - batch * saved


def _layer_flops(config: LatteClassConfig, latent_size: Size, num_images: int) -> int:
    """A spatial and a temporal block: attention (four maps of the width) and feed-forward (eight)."""
    frames, height, columns = latent_size
    patches = height * columns // config.patch_size**2
    spatial, temporal = (frames + num_images) * patches, frames * patches
    products = linear(spatial + temporal, 12 * config.width, config.width)
    return (
        products
        + attention_scores(spatial, patches, config.width)
        + attention_scores(temporal, frames, config.width)
    )


def activation_bytes(config: LatteClassConfig, latent_size: Size) -> int:
    """Bytes of activations of one forward for both halves of the guidance."""
    return latte_cost.activation_bytes(as_t2v(config), latent_size)


def training_bytes(config: LatteClassConfig, latent_size: Size, num_images: int = 0) -> int:
    """Bytes of a sample's activations in a training step, at least: the inputs of all blocks."""
    return latte_cost.training_bytes(as_t2v(config), latent_size, num_images)
