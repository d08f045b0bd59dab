"""Resampling of images, on both engines, against the formula."""

import math
from typing import Any

import numpy as np
import pytest

from opensora.engine import open_engine
from opensora.engine.block import Block
from opensora.nn import F
from opensora.nn.window import ConvWindow

pytestmark = pytest.mark.parametrize("engine", ["mindspore", "openvino"])


@Block
def sample(w: Any, image: Any, x: Any, y: Any, border: bool) -> Any:
    return F.sample(image, x, y, border)


@Block
def shift(w: Any, image: Any, flow: Any) -> Any:
    places = F.pixel_grid(*image.shape[2:]) + flow
    return F.sample(image, places[:, 0], places[:, 1], border=True)


@Block
def resize(w: Any, image: Any, height: int, width: int) -> Any:
    return F.resize(image, height, width)


@Block
def resize_bicubic(w: Any, image: Any, height: int, width: int) -> Any:
    return F.resize_bicubic(image, height, width)


@Block
def pixel_shuffle(w: Any, x: Any, factor: int) -> Any:
    return F.pixel_shuffle(x, factor)


@Block
def depthwise(w: Any, x: Any, window: ConvWindow) -> Any:
    return F.depthwise_conv2d(x, w["weight"], w["bias"], window)


@Block
def activations(w: Any, x: Any) -> Any:
    return F.gelu_erf(x), F.quick_gelu(x)


@Block
def halve(w: Any, image: Any) -> Any:
    return F.halve(image)


@Block
def upconv2d(w: Any, x: Any) -> Any:
    return F.upconv2d(x, w["weight"], w["bias"])


def run(engine: str, block: Block, *inputs: Any, **weights: np.ndarray) -> np.ndarray:
    opened = open_engine(engine)
    result: np.ndarray = opened.call(block, opened.weights(weights), *inputs).asnumpy()
    return result


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def bilinear(image: np.ndarray, x: np.ndarray, y: np.ndarray, border: bool) -> np.ndarray:
    """Pixel by pixel, in float64."""
    height, width = image.shape[2:]
    result = np.zeros((*image.shape[:2], *x.shape[1:]))
    for n, i, j in np.ndindex(*x.shape):
        place_x, place_y = float(x[n, i, j]), float(y[n, i, j])
        if border:
            place_x, place_y = min(max(place_x, 0), width - 1), min(max(place_y, 0), height - 1)
        left, top = int(np.floor(place_x)), int(np.floor(place_y))
        for column, row in np.ndindex(2, 2):
            share = (1 - abs(place_x - left - column)) * (1 - abs(place_y - top - row))
            if 0 <= left + column < width and 0 <= top + row < height:
                result[n, :, i, j] += share * image[n, :, top + row, left + column]
    return result


@pytest.mark.parametrize("border", [True, False])
@pytest.mark.parametrize("size", [(5, 7), (3, 1), (1, 1)])
def test_samples_are_bilinear(engine: str, border: bool, size: tuple[int, int]) -> None:
    image = random(2, 3, *size)
    rng = np.random.default_rng(1)
    x, y = (rng.uniform(-2, side + 1, (2, 4, 6)).astype(np.float32) for side in reversed(size))
    result = run(engine, sample, image, x, y, border)
    np.testing.assert_allclose(result, bilinear(image, x, y, border), atol=1e-5)


def test_a_constant_flow_moves_the_image(engine: str) -> None:
    image, flow = random(1, 2, 6, 8), np.zeros((1, 2, 6, 8), np.float32)
    flow[:, 0], flow[:, 1] = 2, -1
    result = run(engine, shift, image, flow)
    np.testing.assert_allclose(result[:, :, 1:, :-2], image[:, :, :-1, 2:], atol=1e-5)
    np.testing.assert_allclose(result[:, :, 0, :-2], image[:, :, 0, 2:], atol=1e-5)


@pytest.mark.parametrize("size", [(12, 20), (24, 40), (3, 5), (6, 10)])
def test_resizing_samples_between_pixel_centres(engine: str, size: tuple[int, int]) -> None:
    image = random(1, 2, 6, 10)
    y, x = ((np.arange(new) + 0.5) * old / new - 0.5 for new, old in zip(size, (6, 10), strict=True))
    places = [grid[None].astype(np.float32) for grid in np.meshgrid(x, y)]
    expected = bilinear(image, *places, border=True)
    np.testing.assert_allclose(run(engine, resize, image, *size), expected, atol=1e-5)


def test_halving_averages_pairs_and_drops_an_odd_edge(engine: str) -> None:
    image = random(2, 1, 5, 6)
    expected = image[:, :, :4].reshape(2, 1, 2, 2, 3, 2).mean((3, 5))
    np.testing.assert_allclose(run(engine, halve, image), expected, atol=1e-6)


def test_transposed_convolution_spreads_each_pixel(engine: str) -> None:
    x, weight, bias = random(2, 3, 4, 5), random(3, 2, 4, 4), random(2)
    spread = np.zeros((2, 2, 10, 12))
    for row, column in np.ndindex(4, 5):
        part = np.einsum("nc,cokl->nokl", x[:, :, row, column], weight)
        spread[:, :, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4] += part
    expected = spread[:, :, 1:-1, 1:-1] + bias[:, None, None]
    np.testing.assert_allclose(run(engine, upconv2d, x, weight=weight, bias=bias), expected, atol=1e-4)


def cubic_shares(size: int, new_size: int) -> np.ndarray:
    """(new_size, size): Keys' kernel with a = -0.75 at the distance from each pixel; borders are repeated."""
    shares = np.zeros((new_size, size))
    for new in range(new_size):
        centre = (new + 0.5) * size / new_size - 0.5
        for place in range(math.floor(centre) - 1, math.floor(centre) + 3):
            d = abs(centre - place)
            near = 1.25 * d**3 - 2.25 * d**2 + 1
            far = -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
            shares[new, min(max(place, 0), size - 1)] += near if d <= 1 else far
    return shares


@pytest.mark.parametrize("size", [(12, 20), (3, 5), (4, 7)])
def test_bicubic_resizing_is_the_formula(engine: str, size: tuple[int, int]) -> None:
    image = random(2, 3, 6, 10)
    expected = cubic_shares(6, size[0]) @ image @ cubic_shares(10, size[1]).T
    np.testing.assert_allclose(run(engine, resize_bicubic, image, *size), expected, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 3])
def test_channels_become_pixels(engine: str, factor: int) -> None:
    x = random(2, 2 * factor**2, 3, 4)
    found = run(engine, pixel_shuffle, x, factor)
    assert found.shape == (2, 2, 3 * factor, 4 * factor)
    for c, i, j in np.ndindex(2, factor, factor):
        np.testing.assert_array_equal(found[:, c, i::factor, j::factor], x[:, c * factor**2 + factor * i + j])


@pytest.mark.parametrize(("kernel", "stride", "edge"), [(3, 1, 1), (4, 4, 0)])
def test_depthwise_convolution(engine: str, kernel: int, stride: int, edge: int) -> None:
    x, weight, bias = random(2, 3, 8, 9), random(3, 1, kernel, kernel), random(3)
    padded = np.pad(x, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (2, 3))
    expected = np.einsum("nchwij,cij->nchw", windows[:, :, ::stride, ::stride], weight[:, 0])
    found = run(engine, depthwise, x, ConvWindow((edge,) * 4, stride), weight=weight, bias=bias)
    np.testing.assert_allclose(found, expected + bias[:, None, None], atol=1e-5)


def test_exact_and_quick_gelu(engine: str) -> None:
    x = np.linspace(-8, 8, 501, dtype=np.float32)
    exact, quick = (part.asnumpy() for part in open_engine(engine).call(activations, {}, x))
    erf = np.array([math.erf(value / math.sqrt(2)) for value in x])
    np.testing.assert_allclose(exact, 0.5 * x * (1 + erf), atol=1e-6)
    np.testing.assert_allclose(quick, x / (1 + np.exp(-1.702 * x.astype(np.float64))), atol=2e-6)
