"""Scaled dot-product attention (arXiv:1706.03762, section 3.2.1), by the operator that the device has."""

from typing import Any

from opensora import runtime
from opensora.nn.broadcast import expand
from opensora.nn.permute import permute

ms = runtime.mindspore()
ops = ms.ops
ON_ASCEND = runtime.device() == "Ascend"
# The largest batch and head size that the flash-attention operator takes.
FLASH_BATCH, FLASH_DEPTH = 2048, 512
Cell: Any = ms.nn.Cell


class _Softmax(Cell):
    """Over the last axis, with a gradient whose sums are products with a column of ones, and which broadcasts by `expand`."""

    def construct(self, scores: Any) -> Any:
        return ops.softmax(scores, -1)

    def bprop(self, scores: Any, out: Any, gradient: Any) -> Any:
        width = out.shape[-1]
        shares = gradient * out
        sums = ops.MatMul()(ops.reshape(shares, (-1, width)), ops.ones((width, 1), shares.dtype))
        return (shares - out * expand(ops.reshape(sums, (*out.shape[:-1], 1)), width),)


_softmax = _Softmax()


def split_heads(x: Any, heads: int) -> Any:
    """(B, L, heads*d) -> (B, heads, L, d)."""
    batch, length, width = x.shape
    return permute(ops.reshape(x, (batch, length, heads, width // heads)), (0, 2, 1, 3))


def merge_heads(x: Any) -> Any:
    """(B, heads, L, d) -> (B, L, heads*d)."""
    batch, heads, length, width = x.shape
    return ops.reshape(permute(x, (0, 2, 1, 3)), (batch, length, heads * width))


def attention(query: Any, key: Any, value: Any, bias: Any = None, scale: float | None = None) -> Any:
    """softmax(scale * Q K^T + bias) V, with the softmax in float32.

    query (B, heads, L, d), key and value (B, heads, S, d), bias broadcastable to (B, heads, L, S) or None;
    scale is 1/sqrt(d) unless given. Returns (B, heads, L, d). A bias of shape (B, 1, 1, S) must be a mask: 0 keeps a key,
    -10000 leaves it out; flash attention on Ascend, which only takes half precision, reads it so.
    """
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    if ON_ASCEND and _suits_flash(query, bias):
        return flash_attention(query, key, value, bias, factor)
    scores = ops.BatchMatMul(transpose_b=True)(query * factor, key).astype(ms.float32)  # (B, heads, L, S)
    if bias is not None:
        scores = scores + bias
    return ops.BatchMatMul()(_softmax(scores).astype(value.dtype), value)


def _suits_flash(query: Any, bias: Any) -> bool:
    """Whether the operator takes these inputs; a bias that is more than a mask of keys, such as T5's of positions, it does not."""
    if query.dtype != ms.float16 and query.dtype != ms.bfloat16:
        return False
    if bias is not None and bias.shape[1:3] != (1, 1):
        return False
    return query.shape[0] <= FLASH_BATCH and query.shape[-1] <= FLASH_DEPTH


def flash_attention(query: Any, key: Any, value: Any, bias: Any, scale: float) -> Any:
    """`attention` by Ascend's fused operator, never holding the scores (arXiv:2205.14135); bias (B, 1, 1, S) or None."""
    heads, depth = query.shape[1], query.shape[-1]
    # The operator wants a head size that sixteen divides; LatteT2V-XL has 72. Zeros change neither scores nor results.
    missing = -depth % 16
    if missing:
        query, key, value = (
            ops.pad(query, (0, missing)),
            ops.pad(key, (0, missing)),
            ops.pad(value, (0, missing)),
        )
    discard = None if bias is None else _discarded(bias, query.shape[0], query.shape[2])
    out = ops.flash_attention_score(
        query, key, value, heads, attn_mask=discard, scalar_value=scale, input_layout="BNSD"
    )
    return out[..., :depth] if missing else out


def _discarded(bias: Any, batch: int, queries: int) -> Any:
    """(B, 1, 1, S) -> bool (B, 1, L, S), True where a key is left out; a row that masks every key keeps them all, as the sum does."""
    discard = bias - ops.amax(bias, -1, True) < -5000.0
    return ops.broadcast_to(discard, (batch, 1, queries, bias.shape[-1]))
