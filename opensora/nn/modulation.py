"""Scales, shifts and gates of adaLN (arXiv:2212.09748), one per sample, for tokens (B, F, S, D)."""

from collections.abc import Callable

from opensora import runtime
from opensora.engine.tensor import Tensor
from opensora.engine.tree import Tree

ms = runtime.mindspore()
ops = ms.ops
ON_CPU = runtime.device() == "CPU"


def modulate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """x * (1 + scale) + shift: tokens (B, F, S, D), scale and shift (B, 1, 1, D)."""
    return x * _for_tokens(1.0 + scale, x) + _for_tokens(shift, x)


def add_gated(x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
    """x + gate * y: tokens x and y (B, F, S, D), gate (B, 1, 1, D)."""
    return x + _for_tokens(gate, x) * y


def add_residual(x: Tensor, y: Tensor) -> Tensor:
    """x + y."""
    return x + y


def unstacked(x: Tensor) -> Tensor:
    """What can be unpacked to the parts of x along the first axis."""
    return x


def precisely(function: Callable[..., Tree], *inputs: Tree) -> Tree:
    """The function's output, in float32 whatever the precision where an engine chooses it by operator."""
    return function(*inputs)


def _for_tokens(value: Tensor, x: Tensor) -> Tensor:
    """(B, 1, 1, D) -> (B, F, S, D).

    On a CPU this is a product with a column of ones. Operators that broadcast keep large index tables there
    (see `broadcast.py`), and their gradient, a sum over the middle axes, is ten times slower than that of a
    product.
    """
    if not ON_CPU:
        return value
    batch, frames, patches, width = x.shape
    ones = ops.ones((batch, frames * patches, 1), value.dtype)
    return ops.reshape(ops.BatchMatMul()(ones, ops.reshape(value, (batch, 1, width))), x.shape)
