"""Scales, shifts and gates that hold for a whole sample (adaLN, arXiv:2212.09748), on tokens (B, F, S, D).

Their gradients are sums over all tokens of a sample. A framework's reduction over the middle axes is an order of magnitude slower
on a CPU than the product with a row of ones, which is what `bprop` uses.
"""

from typing import Any

from opensora import runtime

ms = runtime.mindspore()
ops = ms.ops
ON_CPU = runtime.device() == "CPU"
Cell: Any = ms.nn.Cell


class _Modulate(Cell):
    def construct(self, x: Any, scale: Any, shift: Any) -> Any:
        return x * _for_tokens(1.0 + scale, x) + _for_tokens(shift, x)

    def bprop(self, x: Any, scale: Any, shift: Any, out: Any, gradient: Any) -> Any:
        return gradient * _for_tokens(1.0 + scale, x), _sum_of_tokens(gradient * x), _sum_of_tokens(gradient)


class _AddGated(Cell):
    def construct(self, x: Any, gate: Any, y: Any) -> Any:
        return x + _for_tokens(gate, x) * y

    def bprop(self, x: Any, gate: Any, y: Any, out: Any, gradient: Any) -> Any:
        return gradient, _sum_of_tokens(gradient * y), gradient * _for_tokens(gate, x)


def _for_tokens(value: Any, x: Any) -> Any:
    """(B, 1, 1, D) -> (B, F, S, D) on a CPU, where operators that broadcast by themselves keep large index tables."""
    return ops.tile(value, (1, x.shape[1], x.shape[2], 1)) if ON_CPU else value


def _sum_of_tokens(x: Any) -> Any:
    """(B, F, S, D) -> (B, 1, 1, D)."""
    batch, frames, patches, width = x.shape
    ones = ops.ones((batch, 1, frames * patches), x.dtype)
    return ops.reshape(ops.BatchMatMul()(ones, ops.reshape(x, (batch, frames * patches, width))), (batch, 1, 1, width))


_modulate, _add_gated = _Modulate(), _AddGated()


def modulate(x: Any, scale: Any, shift: Any) -> Any:
    """x * (1 + scale) + shift: tokens (B, F, S, D), scale and shift (B, 1, 1, D)."""
    return _modulate(x, scale, shift)


def add_gated(x: Any, gate: Any, y: Any) -> Any:
    """x + gate * y: tokens x and y (B, F, S, D), gate (B, 1, 1, D)."""
    return _add_gated(x, gate, y)
