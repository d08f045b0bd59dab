"""Broadcasting in the fastest form for the device."""

from opensora import runtime
from opensora.engine.tensor import Tensor

ms = runtime.mindspore()
ops = ms.ops
ON_CPU = runtime.device() == "CPU"


def expand(x: Tensor, width: int) -> Tensor:
    """(..., 1) float32 -> (..., width) on a CPU; other devices broadcast x in the next operator.

    On a CPU, operators that broadcast are slower, and each compiled one keeps index tables of 16 bytes per
    element. As a product with a row of ones, this has a fast sum for its gradient.
    """
    if not ON_CPU:
        return x
    rows = ops.MatMul()(ops.reshape(x, (-1, 1)), ops.ones((1, width), ms.float32))
    return ops.reshape(rows, (*x.shape[:-1], width))
