from typing import Any

import mindspore as ms
import numpy as np
import pytest

from opensora.nn.normalisation import group_norm, layer_norm, rms_norm


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def expected_group_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, batch: int, groups: int, eps: float = 1e-6
) -> np.ndarray:
    rows, channels, height, width = x.shape
    y = x.astype(np.float64).reshape(rows // batch, batch, groups, channels // groups, height, width)
    axes = (0, 3, 4, 5)
    y = (y - y.mean(axes, keepdims=True)) / np.sqrt(y.var(axes, keepdims=True) + eps)
    return y.reshape(x.shape) * weight[:, None, None] + bias[:, None, None]


@pytest.mark.parametrize(("frames", "batch"), [(1, 1), (1, 2), (3, 1), (3, 2)])
@pytest.mark.parametrize(("channels", "groups"), [(8, 4), (4, 4)])
def test_group_norm(frames: int, batch: int, channels: int, groups: int) -> None:
    x, weight, bias = random(frames * batch, channels, 3, 5), random(channels), random(channels, seed=1)
    result = group_norm(ms.Tensor(x), ms.Tensor(weight), ms.Tensor(bias), batch, groups)
    np.testing.assert_allclose(
        result.asnumpy(), expected_group_norm(x, weight, bias, batch, groups), rtol=1e-5, atol=2e-6
    )


def test_group_norm_of_frames_by_themselves() -> None:
    x, weight, bias = random(6, 8, 3, 5), random(8), random(8, seed=1)
    result = group_norm(ms.Tensor(x), ms.Tensor(weight), ms.Tensor(bias), 6, 4).asnumpy()
    for i in range(6):
        np.testing.assert_allclose(
            result[i : i + 1], expected_group_norm(x[i : i + 1], weight, bias, 1, 4), rtol=1e-5, atol=2e-6
        )


@pytest.mark.parametrize("mean", [100.0, 1000.0])
def test_group_norm_keeps_its_digits_at_a_large_mean(mean: float) -> None:
    x, ones, zeros = random(2, 8, 32, 32) + np.float32(mean), np.ones(8, np.float32), np.zeros(8, np.float32)
    result = group_norm(ms.Tensor(x), ms.Tensor(ones), ms.Tensor(zeros), 1, 4).asnumpy()
    # The error is the rounding of one float32 mean; a difference of squares would lose mean^2 times as much.
    np.testing.assert_allclose(result, expected_group_norm(x, ones, zeros, 1, 4), atol=2e-7 * mean)


def test_gradients_of_group_norm() -> None:
    arrays = random(4, 8, 2, 3), random(8), random(8, seed=1)
    by_output = random(4, 8, 2, 3, seed=2)
    loss = lambda x, w, b: (group_norm(x, w, b, 2, 4) * ms.Tensor(by_output)).sum()  # noqa: E731
    gradients = ms.grad(loss, (0, 1, 2))(*(ms.Tensor(array) for array in arrays))
    for place, gradient in enumerate(gradients):
        direction = random(*arrays[place].shape, seed=3).astype(np.float64)

        def moved(distance: float, place: int = place, direction: np.ndarray = direction) -> float:
            parts: list[Any] = [
                array + distance * direction if i == place else array for i, array in enumerate(arrays)
            ]
            x, weight, bias = parts
            return float((expected_group_norm(x, weight, bias, 2, 4) * by_output).sum())

        slope = (moved(1e-5) - moved(-1e-5)) / 2e-5
        assert float((gradient.asnumpy() * direction).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_layer_norm(mean: float) -> None:
    x = random(2, 3, 64) + np.float32(mean)
    y = x.astype(np.float64)
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(layer_norm(ms.Tensor(x)).asnumpy(), y, rtol=1e-5, atol=2e-6 + 2e-7 * mean)


def test_rms_norm() -> None:
    x, weight = random(2, 3, 64) * 10, random(64)
    y = x.astype(np.float64)
    y = y / np.sqrt((y * y).mean(-1, keepdims=True) + 1e-6) * weight
    np.testing.assert_allclose(rms_norm(ms.Tensor(x), ms.Tensor(weight)).asnumpy(), y, rtol=1e-5, atol=1e-6)


def test_half_precision_comes_out_as_it_went_in() -> None:
    x = ms.Tensor((random(2, 8, 3, 3) * 300).astype(np.float16))
    ones = ms.Tensor(np.ones(8, np.float16))
    result = group_norm(x, ones, ones * 0, 1, 4)
    assert result.dtype == ms.float16
    expected = expected_group_norm(x.asnumpy().astype(np.float32), np.ones(8), np.zeros(8), 1, 4)
    np.testing.assert_allclose(result.asnumpy(), expected, rtol=2e-3, atol=2e-3)
    assert layer_norm(x).dtype == ms.float16
