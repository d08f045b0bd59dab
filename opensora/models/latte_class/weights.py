"""Weights of class-conditional Latte by their published names: shapes, and how new ones are drawn."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from opensora.models import embeddings
from opensora.models.initial import Initialiser, normally, xavier, zeros
from opensora.models.latte.config import TIMESTEP_CHANNELS, LatteConfig, WeightSpec
from opensora.models.latte.config import weight_specs as latte_specs
from opensora.models.latte_class.config import LatteClassConfig, config_of_weights
from opensora.weights import CONFIG, TensorSource, WeightsError, load_config, open_weights
from opensora.weights.sources import open_file

POSITIONS = ("pos_embed", "temp_embed")
"""Tables of positions in files of the variant "dit". They are computed here; the original reads them."""

Specs = dict[str, WeightSpec]


def as_t2v(config: LatteClassConfig) -> LatteConfig:
    """The LatteT2V of v1.0 whose blocks, without their text, are those of the variant "single"."""
    return LatteConfig(
        num_layers=config.num_layers,
        num_attention_heads=config.num_attention_heads,
        attention_head_dim=config.attention_head_dim,
        cross_attention_dim=config.width,
        norm_eps=config.norm_eps,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        patch_size=config.patch_size,
        sample_size=config.sample_size,
        video_length=config.video_length,
        release="v1.0",
    )


def weight_specs(config: LatteClassConfig) -> Specs:
    """Every weight by its published name, in the order of its drawing.

    Distributions follow DiT (arXiv:2212.09748): Xavier-uniform projections, and zeros where blocks and model
    end, so that training starts from blocks that change nothing. "zero" has no such zeros in the original;
    its modulation is zero-initialised here as in "dit".
    """
    if config.variant == "dit":
        return dict(_dit_specs(config))
    if config.variant == "zero":
        return dict(_zero_specs(config))
    specs = latte_specs(as_t2v(config)).items()
    return {n: spec for n, spec in specs if ".attn2." not in n and not n.startswith("caption_projection.")}


def weight_shapes(config: LatteClassConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every weight by its published name."""
    return {name: spec.shape for name, spec in weight_specs(config).items()}


def _linear(
    name: str, outputs: int, inputs: tuple[int, ...], initial: Initialiser = xavier
) -> Iterator[tuple[str, WeightSpec]]:
    yield f"{name}.weight", WeightSpec((outputs, *inputs), initial)
    yield f"{name}.bias", WeightSpec((outputs,), zeros)


def _dit_specs(config: LatteClassConfig) -> Iterator[tuple[str, WeightSpec]]:
    width, patch = config.width, config.patch_size
    conditioning = normally(0.02)
    yield from _linear("x_embedder.proj", width, (config.in_channels, patch, patch))
    yield from _linear("t_embedder.mlp.0", width, (TIMESTEP_CHANNELS,), conditioning)
    yield from _linear("t_embedder.mlp.2", width, (width,), conditioning)
    if config.num_classes:
        yield (
            "y_embedder.embedding_table.weight",
            WeightSpec((config.num_classes + 1, width), conditioning),
        )
    for block in range(2 * config.num_layers):
        name = f"blocks.{block}"
        yield from _linear(f"{name}.attn.qkv", 3 * width, (width,))
        yield from _linear(f"{name}.attn.proj", width, (width,))
        yield from _linear(f"{name}.mlp.fc1", 4 * width, (width,))
        yield from _linear(f"{name}.mlp.fc2", width, (4 * width,))
        yield from _linear(f"{name}.adaLN_modulation.1", 6 * width, (width,), zeros)
    yield from _linear("final_layer.linear", config.out_channels * patch * patch, (width,), zeros)
    yield from _linear("final_layer.adaLN_modulation.1", 2 * width, (width,), zeros)


def _zero_specs(config: LatteClassConfig) -> Iterator[tuple[str, WeightSpec]]:
    width, patch = config.width, config.patch_size
    conditioning = normally(0.02)
    yield from _linear("pos_embed.proj", width, (config.in_channels, patch, patch))
    for axis in ("", "temporal_"):
        for layer in range(config.num_layers):
            name = f"{axis}transformer_blocks.{layer}"
            timestep = f"{name}.norm1.emb.timestep_embedder"
            yield from _linear(f"{timestep}.linear_1", width, (TIMESTEP_CHANNELS,), conditioning)
            yield from _linear(f"{timestep}.linear_2", width, (width,), conditioning)
            yield (
                f"{name}.norm1.emb.class_embedder.embedding_table.weight",
                WeightSpec((config.num_classes + 1, width), conditioning),
            )
            yield from _linear(f"{name}.norm1.linear", 6 * width, (width,), zeros)
            for projection in ("to_q", "to_k", "to_v", "to_out.0"):
                yield from _linear(f"{name}.attn1.{projection}", width, (width,))
            yield from _linear(f"{name}.ff.net.0.proj", 4 * width, (width,))
            yield from _linear(f"{name}.ff.net.2", width, (4 * width,))
    yield from _linear("proj_out_1", 2 * width, (width,), zeros)
    yield from _linear("proj_out_2", config.out_channels * patch * patch, (width,), zeros)


def position_tables(config: LatteClassConfig) -> dict[str, np.ndarray]:
    """The tables that a file of the variant "dit" holds besides the weights; none for the others."""
    if config.variant != "dit":
        return {}
    space = embeddings.sincos_2d(config.width, config.grid, config.grid[0])
    time = embeddings.sincos_1d(config.width, config.video_length)
    return {name: table[None] for name, table in zip(POSITIONS, (space, time), strict=True)}


def find_config(source: str | Path) -> LatteClassConfig:
    """The configuration of a model folder, or of a published file of weights that has none beside it.

    Raises WeightsError or ValueError.
    """
    path = Path(source)
    if path.is_file():
        beside = path.parent / CONFIG
        if beside.is_file():
            with suppress(ValueError):
                return LatteClassConfig.from_dict(load_config(path.parent), beside)
        return config_of_weights({name: entry.shape for name, entry in open_file(path).entries.items()}, path)
    return LatteClassConfig.from_dict(load_config(path), path / CONFIG)


def open_latte_class(source: str | Path, config: LatteClassConfig) -> TensorSource:
    """The weights in a model folder, a file, or one of our checkpoints. Raises WeightsError."""
    return open_weights(source, expected=weight_shapes(config), computed=POSITIONS)


def require_all(weights: Mapping[str, Any], config: LatteClassConfig) -> None:
    """Raise WeightsError unless `weights` has every tensor of the model in its shape."""
    shapes = weight_shapes(config)
    wrong = [
        name for name, shape in shapes.items() if tuple(getattr(weights.get(name), "shape", ())) != shape
    ]
    if wrong:
        raise WeightsError(
            f"the weights lack {len(wrong)} tensors of the model or have them in another shape "
            f"({', '.join(wrong[:10])}): use those that belong to this configuration"
        )
