"""Scales, shifts and gates that hold for a whole sample (adaLN, arXiv:2212.09748), on tokens (B, F, S, D)."""

from typing import Any

from opensora import runtime

ms = runtime.mindspore()
ops = ms.ops
ON_CPU = runtime.device() == "CPU"


def modulate(x: Any, scale: Any, shift: Any) -> Any:
    """x * (1 + scale) + shift: tokens (B, F, S, D), scale and shift (B, 1, 1, D)."""
    return x * _for_tokens(1.0 + scale, x) + _for_tokens(shift, x)


def add_gated(x: Any, gate: Any, y: Any) -> Any:
    """x + gate * y: tokens x and y (B, F, S, D), gate (B, 1, 1, D)."""
    return x + _for_tokens(gate, x) * y


def _for_tokens(value: Any, x: Any) -> Any:
    """(B, 1, 1, D) -> (B, F, S, D).

    On a CPU a product with a column of ones, as in `nn/broadcast.py`: operators that broadcast by themselves
    keep large index tables, and a reduction over the middle axes, which would be the gradient, is an order of
    magnitude slower than the product with a row of ones.
    """
    if not ON_CPU:
        return value
    batch, frames, patches, width = x.shape
    ones = ops.ones((batch, frames * patches, 1), value.dtype)
    return ops.reshape(ops.BatchMatMul()(ones, ops.reshape(value, (batch, 1, width))), x.shape)
