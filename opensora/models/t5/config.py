"""The T5 encoder's configuration and the names and shapes of its weights, as in the release files.

Loads without MindSpore.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from opensora.config_files import Range, shown, typed
from opensora.weights import Shapes, TensorSource, open_weights

EMBEDDING = "shared.weight"
TIED_EMBEDDING = "encoder.embed_tokens.weight"
POSITION_BIAS = "layer.0.SelfAttention.relative_attention_bias"
# A file of the whole model also holds the other half, and the two names of the embedding are one tensor.
UNUSED = ("decoder.", "lm_head.", EMBEDDING, TIED_EMBEDDING)


@dataclass(frozen=True)
class T5Config:
    """The keys of a T5 config.json that shape its encoder. The defaults are T5 v1.1 XXL's."""

    vocab_size: Annotated[int, Range(1, 2**20)] = 32128
    d_model: Annotated[int, Range(1, 2**16)] = 4096
    d_kv: Annotated[int, Range(1, 4096)] = 64
    d_ff: Annotated[int, Range(1, 2**18)] = 10240
    num_layers: Annotated[int, Range(1, 1000)] = 24
    num_heads: Annotated[int, Range(1, 1024)] = 64
    relative_attention_num_buckets: Annotated[int, Range(4, 4096)] = 32
    relative_attention_max_distance: Annotated[int, Range(2, 2**20)] = 128
    layer_norm_epsilon: Annotated[float, Range(0, 1)] = 1e-6
    feed_forward_proj: str = "gated-gelu"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: object = "config.json") -> "T5Config":
        """From a config.json's content; other keys are passed over. where: the file, for errors.

        Raises ValueError for values out of range, and for a feed-forward that is not T5 v1.1's.
        """
        config = typed(cls, values, where)
        if config.feed_forward_proj != "gated-gelu":
            raise ValueError(
                f"{where} says feed_forward_proj = {shown(config.feed_forward_proj)}, which is not "
                "supported: use a T5 v1.1 encoder, which has 'gated-gelu'"
            )
        if config.relative_attention_max_distance <= config.relative_attention_num_buckets // 4:
            raise ValueError(
                f"{where} says relative_attention_max_distance = {config.relative_attention_max_distance}, "
                "which must be more than a quarter of relative_attention_num_buckets: correct it"
            )
        return config


def weight_shapes(config: T5Config) -> Shapes:
    """Shape of every weight by its name in the release file; the embedding by the first of its two names."""
    width, inner = config.d_model, config.num_heads * config.d_kv
    shapes: Shapes = {EMBEDDING: (config.vocab_size, width)}
    for i in range(config.num_layers):
        attention_name, feed_forward = f"encoder.block.{i}.layer.0", f"encoder.block.{i}.layer.1"
        for name in "qkv":
            shapes[f"{attention_name}.SelfAttention.{name}.weight"] = (inner, width)
        shapes[f"{attention_name}.SelfAttention.o.weight"] = (width, inner)
        if i == 0:
            shapes[f"encoder.block.0.{POSITION_BIAS}.weight"] = (
                config.relative_attention_num_buckets,
                config.num_heads,
            )
        shapes[f"{attention_name}.layer_norm.weight"] = (width,)
        shapes[f"{feed_forward}.DenseReluDense.wi_0.weight"] = (config.d_ff, width)
        shapes[f"{feed_forward}.DenseReluDense.wi_1.weight"] = (config.d_ff, width)
        shapes[f"{feed_forward}.DenseReluDense.wo.weight"] = (width, config.d_ff)
        shapes[f"{feed_forward}.layer_norm.weight"] = (width,)
    shapes["encoder.final_layer_norm.weight"] = (width,)
    return shapes


def open_t5(source: str | Path, config: T5Config) -> TensorSource:
    """The encoder's weights, of a file that holds the embedding under either of its names, or under both.

    Raises WeightsError.
    """
    return open_weights(
        source, "model", expected=weight_shapes(config), ignore=UNUSED, aliases={EMBEDDING: TIED_EMBEDDING}
    )
