"""Scaled dot-product attention (arXiv:1706.03762, section 3.2.1) with the operators of the device."""

from typing import Any

from opensora import runtime
from opensora.engine.tensor import Tensor
from opensora.nn.broadcast import expand
from opensora.nn.permute import permute

ms = runtime.mindspore()
ops = ms.ops
ON_ASCEND = runtime.device() == "Ascend"
ON_CPU = runtime.device() == "CPU"
# Limits of Ascend's flash-attention operator for batch and head size.
FLASH_BATCH, FLASH_DEPTH = 2048, 512
Cell: Any = ms.nn.Cell


class _Softmax(Cell):
    """Softmax over the last axis for CPUs, whose gradient sums by a product with ones."""

    def construct(self, scores: Tensor) -> Tensor:
        return ops.softmax(scores, -1)

    def bprop(self, scores: Tensor, out: Tensor, gradient: Tensor) -> Tensor:
        width = out.shape[-1]
        shares = gradient * out
        sums = ops.MatMul()(ops.reshape(shares, (-1, width)), ops.ones((width, 1), shares.dtype))
        return (shares - out * expand(ops.reshape(sums, (*out.shape[:-1], 1)), width),)


_fast_softmax = _Softmax()


def _softmax(scores: Tensor) -> Tensor:
    return _fast_softmax(scores) if ON_CPU else ops.softmax(scores, -1)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, L, heads*d) -> (B, heads, L, d)."""
    batch, length, width = x.shape
    return permute(ops.reshape(x, (batch, length, heads, width // heads)), (0, 2, 1, 3))


def merge_heads(x: Tensor) -> Tensor:
    """(B, heads, L, d) -> (B, L, heads*d)."""
    batch, heads, length, width = x.shape
    return ops.reshape(permute(x, (0, 2, 1, 3)), (batch, length, heads * width))


def attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor = None, scale: float | None = None
) -> Tensor:
    """softmax(scale * Q K^T + bias) V, with the softmax in float32.

    query: (B, heads, L, d). key, value: (B, heads, S, d). Returns (B, heads, L, d).
    bias: broadcastable to (B, heads, L, S), or None. With the shape (B, 1, 1, S) it must be a mask, 0 to keep
        a key and -10000 to drop it: flash attention, used on Ascend in half precision, takes only masks.
    scale: default 1/sqrt(d).
    """
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    if ON_ASCEND and _suits_flash(query, bias):
        return flash_attention(query, key, value, bias, factor)
    scores = ops.BatchMatMul(transpose_b=True)(query * factor, key).astype(ms.float32)  # (B, heads, L, S)
    if bias is not None:
        scores = scores + bias
    return ops.BatchMatMul()(_softmax(scores).astype(value.dtype), value)


def _suits_flash(query: Tensor, bias: Tensor) -> bool:
    """True if flash attention takes these inputs. It takes no bias of positions, such as T5's."""
    if query.dtype != ms.float16 and query.dtype != ms.bfloat16:
        return False
    if bias is not None and bias.shape[1:3] != (1, 1):
        return False
    return query.shape[0] <= FLASH_BATCH and query.shape[-1] <= FLASH_DEPTH


def flash_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float) -> Tensor:
    """`attention` by Ascend's fused operator, which does not store the scores (arXiv:2205.14135).

    bias: (B, 1, 1, S) or None.
    """
    heads, depth = query.shape[1], query.shape[-1]
    # The operator needs a multiple of 16 as head size; LatteT2V-XL has 72. Zeros do not change the result.
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


def _discarded(bias: Tensor, batch: int, queries: int) -> Tensor:
    """Bias (B, 1, 1, S) -> mask (B, 1, L, S), True for keys to leave out.

    A row that masks all keys keeps them all, as adding the bias does.
    """
    discard = bias - ops.amax(bias, -1, True) < -5000.0
    return ops.broadcast_to(discard, (batch, 1, queries, bias.shape[-1]))
