"""Gradients of OpenVINO's operators: from the gradients of a node's outputs to those of its inputs.

A rule `rule(node, by_outputs, wants)` returns a gradient, or None, for each input; `wants` says which inputs
need one. The formulas are those of the operators' specifications, differentiated.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from opensora.engine.graph import opset

Output: TypeAlias = Any
Gradients = Sequence[Output | None]
Rule = Callable[[Any, Sequence[Any], Sequence[bool]], Gradients]

o = opset()
GELU_SCALE, GELU_CUBE = 1.5957691216057308, 0.044715
"""gelu(x) = x sigmoid(GELU_SCALE (x + GELU_CUBE x^3)); the scale is 2 sqrt(2 / pi)."""


def integers(*values: int) -> Any:
    return o.constant(np.array(values, np.int64))


def number(value: float) -> Any:
    return o.constant(np.float32(value))


def shape_of(output: Output) -> tuple[int, ...]:
    return tuple(output.get_shape())


def reshaped(x: Any, shape: Sequence[int]) -> Output:
    x = x.output(0) if hasattr(x, "output") else x
    return x if shape_of(x) == tuple(shape) else o.reshape(x, integers(*shape), False).output(0)


def rows(x: Output) -> Output:
    """(..., D) -> (rows, D)."""
    return reshaped(x, (int(np.prod(shape_of(x)[:-1])), shape_of(x)[-1]))


def summed_to(gradient: Any, shape: Sequence[int]) -> Output:
    """The sum over the axes along which a value of this shape was broadcast."""
    gradient = gradient.output(0) if hasattr(gradient, "output") else gradient
    whole = shape_of(gradient)
    lead = len(whole) - len(shape)
    axes = [i for i, size in enumerate(whole) if i < lead or (shape[i - lead] == 1 and size > 1)]
    if axes:
        gradient = o.reduce_sum(gradient, integers(*axes), True).output(0)
    return reshaped(gradient, shape)


def constant_of(node: Any, place: int) -> np.ndarray:
    """The array of an input that is a constant."""
    return np.asarray(node.input_value(place).get_node().data)


# --- arithmetic ---


def _add(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    return [summed_to(by[0], shape_of(node.input_value(i))) if wants[i] else None for i in range(2)]


def _subtract(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    first, second = (shape_of(node.input_value(i)) for i in range(2))
    return [
        summed_to(by[0], first) if wants[0] else None,
        o.negative(summed_to(by[0], second)).output(0) if wants[1] else None,
    ]


def _multiply(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    first, second = node.input_value(0), node.input_value(1)
    return [
        summed_to(o.multiply(by[0], second), shape_of(first)) if wants[0] else None,
        summed_to(o.multiply(by[0], first), shape_of(second)) if wants[1] else None,
    ]


def _divide(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    first, second = node.input_value(0), node.input_value(1)
    by_first = o.divide(by[0], second)
    by_second = o.negative(o.multiply(by_first, node.output(0)))
    return [
        summed_to(by_first, shape_of(first)) if wants[0] else None,
        summed_to(by_second, shape_of(second)) if wants[1] else None,
    ]


def _matmul(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    a, b, gradient = node.input_value(0), node.input_value(1), by[0]
    turns = node.get_attributes()
    ta, tb = turns["transpose_a"], turns["transpose_b"]
    wide = shape_of(a)
    if len(shape_of(b)) == 2 and not ta:
        a, gradient = rows(a), rows(gradient)
    by_a = by_b = None
    if wants[0]:
        product = o.matmul(b, gradient, tb, True) if ta else o.matmul(gradient, b, False, not tb)
        by_a = reshaped(summed_to(product, shape_of(a)), wide)
    if wants[1]:
        product = o.matmul(gradient, a, True, ta) if tb else o.matmul(a, gradient, not ta, False)
        by_b = summed_to(product, shape_of(b))
    return [by_a, by_b]


# --- functions number by number ---


def _pointwise(slope: Callable[[Any, Any, Any], Any]) -> Rule:
    """slope: from a node's input, its output and the gradient to the product of gradient and slope."""

    def rule(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
        result = slope(node.input_value(0), node.output(0), by[0]).output(0)
        return [result, *(None for _ in wants[1:])]

    return rule


def _one_minus(x: Any) -> Any:
    return o.subtract(number(1), x)


def _sigmoid(x: Output, y: Output, gradient: Output) -> Any:
    return o.multiply(gradient, o.multiply(y, _one_minus(y)))


def _swish(x: Output, y: Output, gradient: Output) -> Any:
    share = o.sigmoid(x)
    return o.multiply(gradient, o.add(share, o.multiply(y, _one_minus(share))))


def _gelu(x: Output, y: Output, gradient: Output) -> Any:
    square = o.multiply(x, x)
    share = o.sigmoid(
        o.multiply(x, o.add(number(GELU_SCALE), o.multiply(square, number(GELU_SCALE * GELU_CUBE))))
    )
    inner = o.add(number(GELU_SCALE), o.multiply(square, number(3 * GELU_SCALE * GELU_CUBE)))
    return o.multiply(
        gradient, o.multiply(share, o.add(number(1), o.multiply(o.multiply(x, _one_minus(share)), inner)))
    )


def _relu(x: Output, y: Output, gradient: Output) -> Any:
    return o.select(o.greater(x, number(0)), gradient, number(0))


def _clamp(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    x = node.input_value(0)
    return [o.select(o.equal(x, node.output(0)), by[0], number(0)).output(0)]


def _prelu(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    x, slope = node.input_value(0), node.input_value(1)
    rest = (1,) * (len(shape_of(x)) - 2)
    factor = (
        reshaped(slope, (1, -1, *rest)) if len(shape_of(slope)) == 1 and shape_of(slope)[0] > 1 else slope
    )
    positive = o.greater(x, number(0))
    by_slope = None
    if wants[1]:
        by_slope = summed_to(o.select(positive, number(0), o.multiply(by[0], x)), shape_of(factor))
        by_slope = reshaped(by_slope, shape_of(slope))
    return [o.select(positive, by[0], o.multiply(by[0], factor)).output(0), by_slope]


def _maximum(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    first, second = node.input_value(0), node.input_value(1)
    larger, zero = o.greater(first, second), number(0)
    parts = o.select(larger, by[0], zero), o.select(larger, zero, by[0])
    return [
        summed_to(part, shape_of(node.input_value(i))) if wants[i] else None for i, part in enumerate(parts)
    ]


def _select(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    condition, zero = node.input_value(0), number(0)
    parts = None, o.select(condition, by[0], zero), o.select(condition, zero, by[0])
    return [
        summed_to(part, shape_of(node.input_value(i))) if part is not None and wants[i] else None
        for i, part in enumerate(parts)
    ]


def _convert(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    return [o.convert(by[0], node.input_value(0).get_element_type().to_string()).output(0)]


# --- sums, softmax and norms ---


def _reduce(node: Any, gradient: Output) -> Output:
    """The gradient of a sum, for all that was summed, not yet broadcast."""
    shape = shape_of(node.input_value(0))
    axes = {int(axis) % len(shape) for axis in constant_of(node, 1).ravel()}
    return reshaped(gradient, [1 if i in axes else size for i, size in enumerate(shape)])


def _broadcast(x: Any, shape: Sequence[int]) -> Output:
    return o.broadcast(x, integers(*shape)).output(0)


def _reduce_sum(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    return [_broadcast(_reduce(node, by[0]), shape_of(node.input_value(0))), None]


def _reduce_mean(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    shape = shape_of(node.input_value(0))
    share = np.prod(shape_of(node.output(0))) / np.prod(shape)
    scaled = o.multiply(_reduce(node, by[0]), number(float(share)))
    return [_broadcast(scaled, shape), None]


def _softmax(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    y, axis = node.output(0), integers(node.get_attributes()["axis"])
    shares = o.multiply(by[0], y)
    return [o.subtract(shares, o.multiply(y, o.reduce_sum(shares, axis, True))).output(0)]


def _mvn(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    """Rule of MVN with its variance normalised, the eps inside the root."""
    x, y, axes, gradient = node.input_value(0), node.output(0), node.input_value(1), by[0]
    scale = inverse_deviation(x, axes, node.get_attributes()["eps"])
    along = o.reduce_mean(o.multiply(gradient, y), axes, True)
    centred = o.subtract(gradient, o.reduce_mean(gradient, axes, True))
    return [o.multiply(scale, o.subtract(centred, o.multiply(y, along))).output(0), None]


def inverse_deviation(x: Output, axes: Any, eps: float) -> Any:
    centred = o.subtract(x, o.reduce_mean(x, axes, True))
    variance = o.reduce_mean(o.multiply(centred, centred), axes, True)
    return o.divide(number(1), o.sqrt(o.add(variance, number(eps))))


def _group_norm(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    x, weight = node.input_value(0), node.input_value(1)
    shape, settings = shape_of(x), node.get_attributes()
    batch, channels, groups = shape[0], shape[1], settings["num_groups"]
    by_group, by_channel = (batch, groups, -1), (batch, channels, -1)
    normal = o.mvn(reshaped(x, by_group), integers(2), True, settings["epsilon"], "inside_sqrt")
    normal = reshaped(normal, by_channel)
    gradient = reshaped(by[0], by_channel)
    products = o.reduce_sum(o.multiply(gradient, normal), integers(2), True)  # (B, C, 1)
    sums = o.reduce_sum(gradient, integers(2), True)
    per_group = (batch, groups, channels // groups)
    count = number(groups / np.prod(shape[1:]))
    factor = reshaped(weight, (1, channels, 1))

    def mean_of_group(values: Any) -> Any:
        """(B, C, 1) -> the mean of its group for every channel, (B, C, 1)."""
        total = o.reduce_sum(reshaped(o.multiply(values, factor), per_group), integers(2), True)
        return reshaped(_broadcast(o.multiply(total, count), per_group), (batch, channels, 1))

    scale = inverse_deviation(reshaped(x, by_group), integers(2), settings["epsilon"])  # (B, G, 1)
    scale = reshaped(_broadcast(scale, per_group), (batch, channels, 1))
    slope = o.multiply(scale, factor)
    offset, along = o.multiply(scale, mean_of_group(sums)), o.multiply(scale, mean_of_group(products))
    inner = o.subtract(o.multiply(gradient, slope), o.add(offset, o.multiply(normal, along)))
    return [
        reshaped(inner, shape),
        reshaped(summed_to(products, (channels, 1)), (channels,)) if wants[1] else None,
        reshaped(summed_to(sums, (channels, 1)), (channels,)) if wants[2] else None,
    ]


# --- shapes ---


def _same_numbers(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    return [reshaped(by[0], shape_of(node.input_value(0))), None]


def _transpose(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    back = np.argsort(constant_of(node, 1))
    return [o.transpose(by[0], integers(*map(int, back))).output(0), None]


def _concat(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    axis = int(node.get_attributes()["axis"])
    sizes = [shape_of(source)[axis] for source in node.input_values()]
    return list(o.variadic_split(by[0], o.constant(np.int64(axis)), integers(*sizes)).outputs())


def zeros(shape: Sequence[int]) -> Output:
    return _broadcast(number(0), shape)


def _split(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    parts = [zeros(shape_of(node.output(i))) if g is None else g for i, g in enumerate(by)]
    return [o.concat(parts, int(constant_of(node, 1))).output(0), None]


def _slice(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    gradient, shape = by[0], shape_of(node.input_value(0))
    starts, _, steps, axes = (constant_of(node, i) for i in range(1, 5))
    for start, step, axis in zip(starts, steps, axes, strict=True):
        if step > 1:
            gradient = _spread(gradient, int(axis), int(step))
        missing = shape[axis] - int(start) - shape_of(gradient)[axis]
        if missing < 0:  # zeros after the last element
            stop = shape[axis] - int(start)
            gradient = o.slice(
                gradient, integers(0), integers(stop), integers(1), integers(int(axis))
            ).output(0)
        gradient = padded(gradient, int(axis), int(start), max(0, missing))
    return [gradient, *(None for _ in wants[1:])]


def _spread(x: Output, axis: int, step: int) -> Output:
    """step - 1 zeros after every element along an axis."""
    shape = list(shape_of(x))
    apart = reshaped(x, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
    apart = padded(apart, axis + 1, 0, step - 1)
    shape[axis] *= step
    return reshaped(apart, shape)


def padded(x: Output, axis: int, before: int, after: int) -> Output:
    """Zeros before and after along an axis."""
    if before == after == 0:
        return x
    begins, ends = ([size if i == axis else 0 for i in range(len(shape_of(x)))] for size in (before, after))
    return o.pad(x, integers(*begins), integers(*ends), "constant", number(0)).output(0)


def _tile(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    shape, repeats = shape_of(node.input_value(0)), constant_of(node, 1).astype(int)
    shape = (*(1,) * (len(repeats) - len(shape)), *shape)
    apart = [size for pair in zip(repeats, shape, strict=True) for size in pair]
    axes = [2 * i for i, times in enumerate(repeats) if times > 1]
    gradient = reshaped(by[0], apart)
    if axes:
        gradient = o.reduce_sum(gradient, integers(*axes), False).output(0)
    return [reshaped(gradient, shape_of(node.input_value(0))), None]


def _broadcasted(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    return [summed_to(by[0], shape_of(node.input_value(0))), None]


def _gather(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    """Rule of gathering rows of a table (rows, width); a row taken several times gets the sum."""
    table, indices = node.input_value(0), node.input_value(1)
    assert int(constant_of(node, 2)) == 0 and len(shape_of(table)) == 2
    updates = rows(by[0])
    places = o.broadcast(reshaped(indices, (shape_of(updates)[0], 1)), integers(*shape_of(updates)))
    from openvino import opset12

    empty = zeros(shape_of(table))
    return [opset12.scatter_elements_update(empty, places, updates, 0, "sum").output(0), None, None]


RULES: dict[str, Rule] = {
    "Add": _add,
    "Subtract": _subtract,
    "Multiply": _multiply,
    "Divide": _divide,
    "MatMul": _matmul,
    "Negative": _pointwise(lambda x, y, g: o.negative(g)),
    "Sqrt": _pointwise(lambda x, y, g: o.divide(o.multiply(g, number(0.5)), y)),
    "Exp": _pointwise(lambda x, y, g: o.multiply(g, y)),
    "Log": _pointwise(lambda x, y, g: o.divide(g, x)),
    "Abs": _pointwise(lambda x, y, g: o.multiply(g, o.sign(x))),
    "Maximum": _maximum,
    "Select": _select,
    "Sigmoid": _pointwise(_sigmoid),
    "Swish": _pointwise(_swish),
    "Gelu": _pointwise(_gelu),
    "Relu": _pointwise(_relu),
    "ReLU": _pointwise(_relu),
    "Clamp": _clamp,
    "PRelu": _prelu,
    "Convert": _convert,
    "ReduceSum": _reduce_sum,
    "ReduceMean": _reduce_mean,
    "Softmax": _softmax,
    "MVN": _mvn,
    "GroupNormalization": _group_norm,
    "Reshape": _same_numbers,
    "Squeeze": _same_numbers,
    "Unsqueeze": _same_numbers,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Tile": _tile,
    "Broadcast": _broadcasted,
    "Gather": _gather,
}
