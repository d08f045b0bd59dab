"""Transpose all axes but the last, in the fastest form for the device."""

from typing import Any

import numpy as np

from opensora import runtime
from opensora.engine.tensor import Tensor

ms = runtime.mindspore()
ops = ms.ops
ON_CPU = runtime.device() == "CPU"
Cell: Any = ms.nn.Cell


class _GatherRows(Cell):
    """Reorder rows. `back` is the inverse of `order`: with it the gradient is a gather too."""

    def construct(self, rows: Tensor, order: Tensor, back: Tensor) -> Tensor:
        return ops.gather(rows, order, 0)

    def bprop(self, rows: Tensor, order: Tensor, back: Tensor, out: Tensor, gradient: Tensor) -> Tensor:
        return ops.gather(gradient, back, 0), ops.zeros_like(order), ops.zeros_like(back)


_gather_rows = _GatherRows()


def permute(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """`ops.transpose(x, axes)` for axes that end with the last one.

    On a CPU it gathers rows: the operator copies element by element, which takes twice as long, and each
    compiled one keeps an index of 8 bytes per element.
    """
    if not ON_CPU:
        return ops.transpose(x, axes)
    shape = x.shape
    order, back = _orders(shape[:-1], axes[:-1])
    rows = _gather_rows(ops.reshape(x, (-1, shape[-1])), order, back)
    return ops.reshape(rows, _shape(shape, axes))


@ops.constexpr
def _orders(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    order = np.arange(np.prod(shape), dtype=np.int32).reshape(shape).transpose(axes).reshape(-1)
    return ms.Tensor(order), ms.Tensor(np.argsort(order).astype(np.int32))


@ops.constexpr
def _shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in axes)
