"""Scaled dot-product attention (arXiv:1706.03762, section 3.2.1), by the operator that the device has."""

from typing import Any

from opensora import runtime

ms = runtime.mindspore()
ops = ms.ops


def split_heads(x: Any, heads: int) -> Any:
    """(B, L, heads*d) -> (B, heads, L, d)."""
    batch, length, width = x.shape
    return ops.transpose(ops.reshape(x, (batch, length, heads, width // heads)), (0, 2, 1, 3))


def merge_heads(x: Any) -> Any:
    """(B, heads, L, d) -> (B, L, heads*d)."""
    batch, heads, length, width = x.shape
    return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (batch, length, heads * width))


def attention(query: Any, key: Any, value: Any, bias: Any = None, scale: float | None = None) -> Any:
    """softmax(scale * Q K^T + bias) V, with the softmax in float32.

    query (B, heads, L, d), key and value (B, heads, S, d), bias broadcastable to (B, heads, L, S) or None;
    scale is 1/sqrt(d) unless given. Returns (B, heads, L, d).
    """
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores = ops.BatchMatMul(transpose_b=True)(query * factor, key).astype(ms.float32)  # (B, heads, L, S)
    if bias is not None:
        scores = scores + bias
    return ops.BatchMatMul()(ops.softmax(scores, -1).astype(value.dtype), value)
