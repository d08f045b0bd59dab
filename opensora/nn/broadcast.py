"""Broadcasting, in the form that a device does well."""

from typing import Any

from opensora import runtime

ms = runtime.mindspore()
ops = ms.ops
ON_CPU = runtime.device() == "CPU"


def expand(x: Any, width: int) -> Any:
    """(..., 1) float32 -> (..., width), ready for arithmetic with a tensor of that shape.

    On a CPU x takes that shape: operators that broadcast by themselves are slower there, and every compiled
    one keeps index tables of 16 bytes an element for as long as it lives. As a product with a row of ones its
    gradient is a fast sum.
    """
    if not ON_CPU:
        return x
    rows = ops.MatMul()(ops.reshape(x, (-1, 1)), ops.ones((1, width), ms.float32))
    return ops.reshape(rows, (*x.shape[:-1], width))
