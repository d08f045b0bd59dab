"""How much memory the parts of a model need, and how much there is: decides whether they can stay loaded together."""

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from opensora.models.causal_vae.config import CausalVAEConfig
from opensora.models.causal_vae.memory import SHARE, choose, chunked, whole
from opensora.runtime import UNKNOWN as UNKNOWN
from opensora.runtime import free_memory as free_memory
from opensora.weights import ModelFolder, load_config
from opensora.weights.sources import folder_files

if TYPE_CHECKING:
    from opensora.models.causal_vae.tiling import Tiling

FLOAT = 4
FRAMEWORK = 2**30  # the process itself: libraries, compiled code, the allocator's slack
# Measured on a CPU, where every compiled block keeps the workspace of its operators: one evaluation in units of tokens * width.
TRANSFORMER_ACTIVATIONS = 110
XL_WIDTH = 1152


def estimate(
    model: ModelFolder, latent_size: tuple[int, int, int], tiling: "Tiling | None" = None, device: str = "CPU"
) -> int:
    """Bytes that encoding, denoising and decoding one video need with all parts loaded.

    latent_size: (T, h, w) of the latents. Weights are counted in float32 from the files' headers; of the activations, the larger
    of the transformer's, for both halves of the guidance, and of the decoder's.
    """
    parts = [part for part in (model.text_encoder, model.transformer, model.vae) if part is not None]
    return (
        FRAMEWORK
        + sum(map(weights_size, parts))
        + max(denoising(model, latent_size), decoding(model, latent_size, tiling, choose("auto", device)))
    )


def denoising(model: ModelFolder, latent_size: tuple[int, int, int]) -> int:
    """Bytes of the transformer's activations for both halves of the guidance."""
    transformer = load_config(model.transformer)
    tokens = prod(latent_size) // int(transformer.get("patch_size", 2)) ** 2
    return (
        TRANSFORMER_ACTIVATIONS * 2 * tokens * int(transformer.get("cross_attention_dim", XL_WIDTH)) * FLOAT
    )


def decoding(
    model: ModelFolder, latent_size: tuple[int, int, int], tiling: "Tiling | None" = None, way: str = "exact"
) -> int:
    """Bytes of the decoder's activations; way: "exact" or "chunked"."""
    return vae_activations(CausalVAEConfig.from_dict(load_config(model.vae)), latent_size, tiling, way)


def vae_activations(
    config: CausalVAEConfig,
    latent_size: tuple[int, int, int],
    tiling: "Tiling | None" = None,
    way: str = "exact",
    batch: int = 1,
) -> int:
    """Bytes of the decoder's activations, which are more than the encoder's; way: "exact" or "chunked"."""
    if tiling is None and way == "chunked":
        stored, working = chunked(config, latent_size, batch)
        return working + min(stored, int(SHARE * free_memory()))
    frames, height, width = latent_size
    if tiling is not None:
        frames, height, width = (
            min(frames, tiling.latent_frames),
            min(height, tiling.latent_size),
            min(width, tiling.latent_size),
        )
    pixels = (
        config.time_stride * (frames - 1) + 1,
        config.space_stride * height,
        config.space_stride * width,
    )
    return whole(config, pixels, batch)


def weights_size(folder: Path) -> int:
    """Bytes of a folder's weights in float32."""
    return FLOAT * sum(prod(entry.shape) for file in folder_files(folder) for entry in file.entries.values())


def free_swap(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes of swap space that are free; 0 where it is not told."""
    if not meminfo.is_file():
        return 0
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    return int(lines.get("SwapFree", "0 kB").split()[0]) * 1024
