"""The published sizes of class-conditional Latte by name, and one for small data sets."""

from pathlib import Path

from opensora.models.latte_class.config import LatteClassConfig, Variant
from opensora.models.latte_class.weights import find_config
from opensora.weights.folder import did_you_mean

# Pairs of blocks, heads and width of a head.
DIMENSIONS = {
    "XL": (28, 16, 72),
    "L": (24, 16, 64),
    "B": (12, 12, 64),
    "S": (12, 6, 64),
    "T": (6, 6, 32),
}
PATCHES = {"2": 2, "4": 4, "8": 8, "122": 2, "144": 4, "188": 8}
"""Patch sizes in the names of Vchitect ("Latte-XL/2") and of Open-Sora-Plan ("Latte-XL/122")."""


def _named(variant: Variant, size: str, patch: int) -> LatteClassConfig:
    layers, heads, depth = DIMENSIONS[size]
    return LatteClassConfig(
        variant,
        num_layers=layers,
        num_attention_heads=heads,
        attention_head_dim=depth,
        patch_size=patch,
        num_classes=0 if variant == "single" else LatteClassConfig.num_classes,
    )


MODELS = {
    **{f"Latte-{s}/{p}": _named("dit", s, patch) for s in DIMENSIONS for p, patch in PATCHES.items()},
    "LatteClass-XL/122": _named("zero", "XL", 2),
    "Latte-XL/122-v1.0.0": _named("single", "XL", 2),
}
"""Configurations by name. The size T is the demo's. The last two are the networks of v1.0.0."""


def find_architecture(model: str) -> LatteClassConfig:
    """The configuration of a name in MODELS, of a folder with config.json, or of a file of weights.

    Raises ValueError for an unknown name.
    """
    if model in MODELS:
        return MODELS[model]
    if Path(model).exists():
        return find_config(model)
    raise ValueError(
        f"model {model!r} is unknown{did_you_mean(model, MODELS)}: choose one of "
        f"{', '.join(name for name in MODELS if '/1' in name)}, or name a folder with config.json"
    )
