"""Gradients of OpenVINO's convolutions and of what resizes images.

The gradient by the input is the transposed convolution. That by the weight is a sum over all pixels: a matrix
product for each position of the kernel, of the output's gradient and of the pixels that the position reads.
"""

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

from opensora.engine.graph import opset
from opensora.engine.rules import Gradients, Output, Rule, integers, number, reshaped, shape_of, summed_to

o = opset()


def _convolution(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    settings = node.get_attributes()
    assert all(step == 1 for step in settings["dilations"])
    x, weight, gradient = node.input_value(0), node.input_value(1), by[0]
    strides = list(settings["strides"])
    before, after = list(settings["pads_begin"]), list(settings["pads_end"])
    by_x = _by_input(x, weight, gradient, strides, before, after) if wants[0] else None
    by_weight = _by_weight(x, weight, gradient, strides, before, after) if wants[1] else None
    return [by_x, by_weight]


def _by_input(
    x: Output, weight: Output, gradient: Output, strides: list[int], before: list[int], after: list[int]
) -> Output:
    sizes = shape_of(x)[2:]
    return o.convolution_backprop_data(
        gradient, weight, strides, integers(*sizes), before, after, [1] * len(strides)
    ).output(0)


def _by_weight(
    x: Output, weight: Output, gradient: Output, strides: list[int], before: list[int], after: list[int]
) -> Output:
    """(out, in, *kernel) from x (N, in, *sizes) and the output's gradient (N, out, *places)."""
    batch, channels = shape_of(x)[:2]
    kernel, outputs, places = shape_of(weight)[2:], shape_of(weight)[0], shape_of(gradient)[2:]
    if any(before) or any(after):
        begins, ends = integers(0, 0, *before), integers(0, 0, *after)
        x = o.pad(x, begins, ends, "constant", number(0)).output(0)
    columns = reshaped(gradient, (batch, outputs, prod(places)))
    axes, steps = integers(*range(2, 2 + len(kernel))), integers(*strides)
    parts = []
    for position in product(*map(range, kernel)):
        stops = [
            start + step * (count - 1) + 1
            for start, step, count in zip(position, strides, places, strict=True)
        ]
        read = o.slice(x, integers(*position), integers(*stops), steps, axes)
        read = reshaped(read, (batch, channels, prod(places)))
        parts.append(summed_to(o.matmul(columns, read, False, True), (1, outputs, channels)))
    if len(parts) == 1:
        return reshaped(parts[0], shape_of(weight))
    whole = o.concat(parts, 0)  # (positions, out, in)
    return reshaped(o.transpose(whole, integers(1, 2, 0)), shape_of(weight))


def _transposed(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    """The gradients of a transposed convolution: those of a convolution with the roles swapped."""
    settings = node.get_attributes()
    assert all(step == 1 for step in settings["dilations"]) and not any(settings["output_padding"])
    x, weight, gradient = node.input_value(0), node.input_value(1), by[0]
    strides = list(settings["strides"])
    before, after = list(settings["pads_begin"]), list(settings["pads_end"])
    by_x = by_weight = None
    if wants[0]:
        by_x = o.convolution(gradient, weight, strides, before, after, [1] * len(strides)).output(0)
    if wants[1]:
        by_weight = _by_weight(gradient, weight, x, strides, before, after)
    return [by_x, by_weight]


def _interpolate(node: Any, by: Sequence[Any], wants: Sequence[bool]) -> Gradients:
    """Rule of enlarging an image to its nearest pixels by whole factors: sums over the copies of each."""
    assert node.get_attributes()["mode"] == "nearest"
    shape, grown = shape_of(node.input_value(0)), shape_of(node.output(0))
    factors = [large // small for large, small in zip(grown, shape, strict=True)]
    assert all(size * factor == large for size, factor, large in zip(shape, factors, grown, strict=True))
    apart = [number for pair in zip(shape, factors, strict=True) for number in pair]
    # Axes that do not grow are dropped: the library's operators have few axes.
    kept = [i for i in range(len(apart)) if i % 2 == 0 or apart[i] > 1]
    gradient = reshaped(by[0], [apart[i] for i in kept])
    sums = [place for place, i in enumerate(kept) if i % 2 == 1]
    result = o.reduce_sum(gradient, integers(*sums), False).output(0) if sums else gradient
    return [reshaped(result, shape), *(None for _ in wants[1:])]


CONVOLUTION_RULES: dict[str, Rule] = {
    "Convolution": _convolution,
    "ConvolutionBackpropData": _transposed,
    "Interpolate": _interpolate,
}
