"""Floating-point operations of matrix products, a multiply-add counted as two.

No count includes norms, activations and softmax: they are a few per mille of the operations, if not of the
time.
"""


def linear(rows: int, inputs: int, outputs: int) -> int:
    """Operations of a matrix product (rows, inputs) x (inputs, outputs)."""
    return 2 * rows * inputs * outputs


def attention_scores(queries: int, keys: int, width: int) -> int:
    """Operations of the scores of attention, and of the sum of the values that they weight."""
    return 4 * queries * keys * width
