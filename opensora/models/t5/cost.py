"""Cost of the text encoder: operations and memory. Does not import MindSpore."""

from opensora.models.flops import attention_scores, linear
from opensora.models.t5.config import T5Config


def encode_flops(config: T5Config, length: int) -> int:
    """Operations of encoding one text of `length` tokens, padding included."""
    inner = config.num_heads * config.d_kv
    layer = linear(length, 4 * inner, config.d_model)
    layer += attention_scores(length, length, inner)
    layer += linear(length, 3 * config.d_ff, config.d_model)
    return config.num_layers * layer


def streamed_bytes(config: T5Config, weights: int) -> int:
    """Bytes of an encoder that is read layer by layer; weights: bytes of all of it.

    The framework still holds one layer while the next is read.
    """
    return 2 * weights // config.num_layers
