"""The T5 encoder's configuration and the names and shapes of its weights, as in the release files.

Loads without MindSpore.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from opensora.weights import TensorSource, check_types, open_weights

EMBEDDING = "shared.weight"
TIED_EMBEDDING = "encoder.embed_tokens.weight"
POSITION_BIAS = "layer.0.SelfAttention.relative_attention_bias"
# A file of the whole model also holds the other half, and the two names of the embedding are one tensor.
UNUSED = ("decoder.", "lm_head.", EMBEDDING, TIED_EMBEDDING)


@dataclass(frozen=True)
class T5Config:
    """The keys of a T5 config.json that shape its encoder. The defaults are T5 v1.1 XXL's."""

    vocab_size: int = 32128
    d_model: int = 4096
    d_kv: int = 64
    d_ff: int = 10240
    num_layers: int = 24
    num_heads: int = 64
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: str = "gated-gelu"

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "T5Config":
        """From a config.json's content; other keys are passed over.

        ValueError for a feed-forward that is not T5 v1.1's.
        """
        names = {field.name for field in fields(cls)}
        chosen = {key: value for key, value in values.items() if key in names}
        check_types(cls(), chosen)
        config = cls(**chosen)
        if config.feed_forward_proj != "gated-gelu":
            raise ValueError(
                f"feed_forward_proj {config.feed_forward_proj!r} is not supported: "
                "use a T5 v1.1 encoder, which has 'gated-gelu'"
            )
        return config


def weight_shapes(config: T5Config) -> dict[str, tuple[int, ...]]:
    """Shape of every weight by its name in the release file; the embedding by the first of its two names."""
    width, inner = config.d_model, config.num_heads * config.d_kv
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (config.vocab_size, width)}
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
