"""Weight formats of the networks that can be converted: how files are named, recognised, and checked."""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from opensora.models.causal_vae.config import CausalVAEConfig
from opensora.models.causal_vae.config import weight_shapes as vae_shapes
from opensora.models.latte.config import LatteConfig, open_latte
from opensora.models.latte.config import weight_shapes as latte_shapes
from opensora.models.latte_class.config import LatteClassConfig
from opensora.models.latte_class.weights import find_config, position_tables
from opensora.models.latte_class.weights import weight_shapes as latte_class_shapes
from opensora.models.t5.config import T5Config, open_t5
from opensora.models.t5.config import weight_shapes as t5_shapes
from opensora.weights import Shapes, TensorSource, WeightsError, open_file, open_weights, weight_files
from opensora.weights.vae_2d import is_vae_2d, open_vae_2d

LOSS = "loss."
Config = dict[str, Any]


@dataclass(frozen=True)
class WeightFormat:
    """How the weights of one network are stored.

    title: the network's name. stem: its file name without ending. release_config: content of the release's
    config.json, for a source that has none.
    shapes: from a configuration to the shapes of its weights. open: the weights of a source, checked against
    them.
    """

    title: str
    stem: str
    release_config: Callable[[Path], Config]
    shapes: Callable[[Config], Shapes]
    open: Callable[[Path, Config], TensorSource]


def _vae_shapes(config: Config) -> Shapes:
    return vae_shapes(CausalVAEConfig.from_dict(config))


def _open_vae(source: Path, config: Config) -> TensorSource:
    """Includes the weights of the training loss, if any: the reference cannot load strictly without them."""
    files = [open_file(path) for path in weight_files(source)]
    loss = {
        name: file.entries[name].shape for file in files for name in file.entries if name.startswith(LOSS)
    }
    return open_weights(source, expected=_vae_shapes(config) | loss)


def _open_lpips(source: Path, config: Config) -> TensorSource:
    files = [open_file(path) for path in weight_files(source)]
    # VGG16's classifier is most of its file, and LPIPS does not use it.
    where = {
        name: (file, name, file.entries[name].shape)
        for file in files
        for name in file.entries
        if not name.startswith("classifier.")
    }
    return TensorSource(where)


def _latte_class_shapes(config: Config) -> Shapes:
    """With the tables of positions, which the original reads."""
    settings = LatteClassConfig.from_dict(config)
    tables = {name: table.shape for name, table in position_tables(settings).items()}
    return {**tables, **latte_class_shapes(settings)}


def _nothing(config: Config | Path | None = None) -> dict[str, Any]:
    return {}


DIFFUSERS = "diffusion_pytorch_model"
FORMATS = {
    "transformer": WeightFormat(
        title="LatteT2V",
        stem=DIFFUSERS,
        release_config=lambda source: LatteConfig().to_dict(),
        shapes=lambda config: latte_shapes(LatteConfig.from_dict(config)),
        open=lambda source, config: open_latte(source, LatteConfig.from_dict(config)),
    ),
    "latte_class": WeightFormat(
        title="class-conditional Latte",
        stem=DIFFUSERS,
        release_config=lambda source: find_config(source).to_dict(),
        shapes=_latte_class_shapes,
        open=lambda source, config: open_weights(source, expected=_latte_class_shapes(config)),
    ),
    "vae": WeightFormat(
        "CausalVAE", DIFFUSERS, lambda source: asdict(CausalVAEConfig()), _vae_shapes, _open_vae
    ),
    "text_encoder": WeightFormat(
        title="T5 encoder",
        stem="model",
        release_config=lambda source: {
            "architectures": ["T5EncoderModel"],
            "model_type": "t5",
            **asdict(T5Config()),
        },
        shapes=lambda config: t5_shapes(T5Config.from_dict(config)),
        open=lambda source, config: open_t5(source, T5Config.from_dict(config)),
    ),
    "vae_2d": WeightFormat(
        "autoencoder of images", DIFFUSERS, _nothing, _nothing, lambda source, config: open_vae_2d(source)
    ),
    "lpips": WeightFormat("LPIPS", DIFFUSERS, _nothing, _nothing, _open_lpips),
}
WITHOUT_CONFIG = ("vae_2d", "lpips")


def find_format(source: Path) -> str:
    """The key in FORMATS of the weights in `source`, found by their names.

    Raises WeightsError if none fits.
    """
    stem = "model" if source.is_dir() and not any(source.glob("diffusion_pytorch_model*")) else DIFFUSERS
    files = [open_file(path) for path in weight_files(source, stem)]
    names = [name for file in files for name in file.entries if not name.startswith(LOSS)]
    if _is_latte_class(names):
        return "latte_class"
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
    titles = ", ".join(form.title for form in FORMATS.values())
    raise WeightsError(f"{source} holds none of the known models ({titles}): check the file")


def _is_latte_class(names: list[str]) -> bool:
    """True for one of the three variants: that of Vchitect, and blocks without text."""
    own = re.compile(r"(^|\.)(blocks\.\d+\.adaLN_modulation\.1|norm1\.emb\.class_embedder)\.")
    if any(own.search(name) for name in names):
        return True
    blocks = any("transformer_blocks." in name for name in names)
    return blocks and not any(".attn2." in name or "spatial_block" in name for name in names)
