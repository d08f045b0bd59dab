"""Linear layers. Weights have the names of the release: `<name>.weight` (out, in), `<name>.bias` (out,)."""

from typing import Any

from opensora.runtime import mindspore

ops = mindspore().ops


def linear(weights: Any, name: str, x: Any) -> Any:
    """x W^T + b over the last axis, (..., in) -> (..., out); the bias is left out where the weights hold
    none.

    The product is computed in the weight's number format, the result is in that of x.
    """
    weight = weights[name + ".weight"]
    rows = ops.reshape(x, (-1, x.shape[-1]))
    y = ops.MatMul(transpose_b=True)(rows.astype(weight.dtype), weight).astype(x.dtype)  # (rows, out)
    if name + ".bias" in weights:
        y = ops.bias_add(y, weights[name + ".bias"])
    return ops.reshape(y, (*x.shape[:-1], weight.shape[0]))
