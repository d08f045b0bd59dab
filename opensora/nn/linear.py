"""Linear layers. Weights have the names of the release: `<name>.weight` (out, in), `<name>.bias` (out,)."""

from opensora.engine.block import Weights
from opensora.engine.tensor import Tensor
from opensora.runtime import mindspore

ops = mindspore().ops


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    """x W^T + b over the last axis, (..., in) -> (..., out); without b if there is no such weight.

    The product is computed in the dtype of W, the result has the dtype of x.
    """
    weight = weights[name + ".weight"]
    rows = ops.reshape(x, (-1, x.shape[-1]))
    y = ops.MatMul(transpose_b=True)(rows.astype(weight.dtype), weight).astype(x.dtype)  # (rows, out)
    if name + ".bias" in weights:
        y = ops.bias_add(y, weights[name + ".bias"])
    return ops.reshape(y, (*x.shape[:-1], weight.shape[0]))
