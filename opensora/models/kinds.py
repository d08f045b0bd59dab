"""The networks whose weights can be converted: how each one's files are called, recognised, and checked against a configuration."""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from opensora.models.latte_config import LatteConfig, open_latte
from opensora.models.t5_config import T5Config, open_t5
from opensora.weights import TensorSource, WeightsError, open_file, open_weights, weight_files
from opensora.weights.vae_2d import is_vae_2d, open_vae_2d

LOSS = "loss."


@dataclass(frozen=True)
class Kind:
    """A network: what it is called, how its files are called, the published configuration, and how weights are checked against one."""

    title: str
    stem: str
    published: Callable[[], dict[str, Any]]
    open: Callable[[Path, dict[str, Any]], TensorSource]


def _open_vae(source: Path, config: dict[str, Any]) -> TensorSource:
    """With the weights of the training loss, where there are any: the original cannot load strictly without them."""
    from opensora.models.causal_vae import CausalVAEConfig, weight_shapes  # brings MindSpore in

    files = [open_file(path) for path in weight_files(source)]
    loss = {name: file.entries[name].shape for file in files for name in file.entries if name.startswith(LOSS)}
    return open_weights(source, expected=weight_shapes(CausalVAEConfig.from_dict(config)) | loss)


def _published_vae() -> dict[str, Any]:
    from opensora.models.causal_vae_config import CausalVAEConfig

    return asdict(CausalVAEConfig())


def _open_lpips(source: Path, config: dict[str, Any]) -> TensorSource:
    files = [open_file(path) for path in weight_files(source)]
    # VGG16's classifier is most of its file, and no distance needs it.
    where = {name: (file, name, file.entries[name].shape) for file in files for name in file.entries if not name.startswith("classifier.")}
    return TensorSource(where)


DIFFUSERS = "diffusion_pytorch_model"
KINDS = {
    "transformer": Kind(
        "LatteT2V", DIFFUSERS, lambda: LatteConfig().to_dict(), lambda source, config: open_latte(source, LatteConfig.from_dict(config))
    ),
    "vae": Kind("CausalVAE", DIFFUSERS, _published_vae, _open_vae),
    "text_encoder": Kind(
        "T5 encoder",
        "model",
        lambda: {"architectures": ["T5EncoderModel"], "model_type": "t5", **asdict(T5Config())},
        lambda source, config: open_t5(source, T5Config.from_dict(config)),
    ),
    "vae_2d": Kind("autoencoder of images", DIFFUSERS, dict, lambda source, config: open_vae_2d(source)),
    "lpips": Kind("LPIPS", DIFFUSERS, dict, _open_lpips),
}
WITHOUT_CONFIG = ("vae_2d", "lpips")


def find_kind(source: Path) -> str:
    """Which of KINDS the weights of `source` belong to, by their names. Raises WeightsError where none fits."""
    stem = "model" if source.is_dir() and not any(source.glob("diffusion_pytorch_model*")) else DIFFUSERS
    files = [open_file(path) for path in weight_files(source, stem)]
    names = [name for file in files for name in file.entries if not name.startswith(LOSS)]
    for kind, pattern in (
        ("transformer", r"(^|\.)(transformer_blocks\.\d+\.attn1|blocks\.\d+\.spatial_block)\."),
        ("text_encoder", r"(^|\.)encoder\.block\.\d+\.layer\.0\.SelfAttention\."),
        ("lpips", r"(^|\.)(lin\d\.model|net\.slice\d|features)\.\d+\."),
    ):
        if any(re.search(pattern, name) for name in names):
            return kind
    if any(map(is_vae_2d, files)):
        return "vae_2d"
    if any("encoder.mid.block_1." in name for name in names):
        return "vae"
    raise WeightsError(f"{source} holds none of the known models ({', '.join(kind.title for kind in KINDS.values())}): check the file")
