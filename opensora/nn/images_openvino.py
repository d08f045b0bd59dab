"""The functions of `images.py` as nodes of an OpenVINO graph."""

from typing import Any

import numpy as np

from opensora.engine.graph import Node, constant, integers, opset

o = opset()


def sample(image: Node, x: Node, y: Node, border: bool = False) -> Node:
    height, width = image.shape[2:]
    pair = [(2 * x + 1) / width - 1, (2 * y + 1) / height - 1]
    grid = o.concat([o.unsqueeze(axis.output, integers([-1])) for axis in pair], -1)
    attributes = {"align_corners": False, "mode": "bilinear", "padding_mode": "border" if border else "zeros"}
    return Node(o.grid_sample(image.output, grid, attributes).output(0))


def pixel_grid(height: int, width: int) -> Node:
    return constant(np.indices((height, width), np.float32)[None, ::-1].copy())


def resize(image: Node, height: int, width: int) -> Node:
    sizes, axes = integers([height, width]), integers([2, 3])
    return image.map(lambda x: o.interpolate(x, sizes, "linear_onnx", "sizes", axes=axes))


def resize_bicubic(image: Node, height: int, width: int) -> Node:
    def resized(x: Any) -> Any:
        sizes, axes = integers([height, width]), integers([2, 3])
        mode = {"coordinate_transformation_mode": "half_pixel", "cube_coeff": -0.75}
        return o.interpolate(x, sizes, "cubic", "sizes", axes=axes, **mode)

    return image.map(resized)


def pixel_shuffle(x: Node, factor: int) -> Node:
    return x.map(lambda value: o.depth_to_space(value, "depth_first", factor))


def halve(image: Node) -> Node:
    return image.map(lambda x: o.avg_pool(x, [2, 2], [0, 0], [0, 0], [2, 2], True))


def upconv2d(x: Node, weight: Node, bias: Node) -> Node:
    y = o.convolution_backprop_data(
        x.output, weight.output, strides=[2, 2], pads_begin=[1, 1], pads_end=[1, 1], dilations=[1, 1]
    )
    return Node(y.output(0)) + Node(o.reshape(bias.output, integers([1, -1, 1, 1]), False).output(0))
