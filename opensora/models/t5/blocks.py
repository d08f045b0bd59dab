"""The blocks of T5's encoder, and the network that they make.

T5 differs from other transformers: instead of a position embedding, all layers share a learned bias per head
and bucketed distance; attention scores are not scaled; linear maps have no bias; an RMS norm precedes each
half of a layer.
"""

import numpy as np

from opensora.engine.block import Block, Run, Weights
from opensora.models.t5.config import EMBEDDING, POSITION_BIAS, T5Config
from opensora.nn import F, Tensor


def position_buckets(length: int, buckets: int = 32, max_distance: int = 128) -> np.ndarray:
    """Bucket of every pair (query, key): int32 (length, length), section 2.1 of arXiv:1910.10683.

    Half of the buckets are for keys after the query. In each half, the first half of the buckets has one
    distance each; the others grow logarithmically up to `max_distance`. Computed on the host, because a
    device's logarithm may round to the wrong bucket at powers of two.
    """
    offset = np.arange(length)[None, :] - np.arange(length)[:, None]  # key minus query
    distance = np.abs(offset)
    half = buckets // 2
    exact = half // 2
    growth = np.log(np.maximum(distance, 1).astype(np.float32) / exact) / np.float32(
        np.log(max_distance / exact)
    )
    far = exact + (growth * (half - exact)).astype(np.int64)
    bucket = np.where(distance < exact, distance, np.minimum(far, half - 1))
    return (bucket + np.where(offset > 0, half, 0)).astype(np.int32)


def _embed(w: Weights, input_ids: Tensor) -> Tensor:
    return F.gather(w["weight"], input_ids, 0)  # (B, L, d_model)


def _attention_bias(w: Weights, buckets: Tensor, attention_mask: Tensor) -> Tensor:
    """Bias of the scores, (1 or B, heads, L, L), by distance; masked keys get the lowest float32."""
    bias = F.expand_dims(F.transpose(F.gather(w["weight"], buckets, 0), (2, 0, 1)), 0).astype(F.float32)
    if attention_mask is not None:
        masked = (1.0 - attention_mask.astype(F.float32)) * -3.4028234663852886e38
        bias = bias + F.reshape(masked, (masked.shape[0], 1, 1, masked.shape[1]))
    return bias


def _layer(w: Weights, x: Tensor, bias: Tensor, heads: int, eps: float) -> Tensor:
    """x (B, L, d_model), bias (1 or B, heads, L, L) -> (B, L, d_model)."""
    y = F.rms_norm(x, w["layer.0.layer_norm.weight"], eps)
    query, key, value = (
        F.split_heads(F.linear(w, f"layer.0.SelfAttention.{name}", y), heads) for name in ("q", "k", "v")
    )
    y = F.merge_heads(F.attention(query, key, value, bias, scale=1.0))  # (B, L, heads*d_kv)
    x = x + F.linear(w, "layer.0.SelfAttention.o", y)
    y = F.rms_norm(x, w["layer.1.layer_norm.weight"], eps)
    y = F.gelu(F.linear(w, "layer.1.DenseReluDense.wi_0", y)) * F.linear(
        w, "layer.1.DenseReluDense.wi_1", y
    )  # (B, L, d_ff)
    return x + F.linear(w, "layer.1.DenseReluDense.wo", y)


def _final_norm(w: Weights, x: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, w["weight"], eps)


EMBED, ATTENTION_BIAS, FINAL_NORM = Block(_embed), Block(_attention_bias), Block(_final_norm)
# Only the first layer holds the position bias: without it one compiled block serves all.
LAYER = Block(_layer, unused=POSITION_BIAS)


def encode(run: Run, config: T5Config, input_ids: Tensor, buckets: Tensor, attention_mask: Tensor) -> Tensor:
    """The network: input_ids (B, L) -> embeddings (B, L, d_model).

    buckets: (L, L), from `position_buckets`. attention_mask: (B, L), or None.
    """
    x = run(EMBED, EMBEDDING.removesuffix(".weight"), input_ids)
    bias = run(ATTENTION_BIAS, f"encoder.block.0.{POSITION_BIAS}", buckets, attention_mask)
    for i in range(config.num_layers):
        x = run(LAYER, f"encoder.block.{i}", x, bias, config.num_heads, config.layer_norm_epsilon)
    return run(FINAL_NORM, "encoder.final_layer_norm", x, config.layer_norm_epsilon)
