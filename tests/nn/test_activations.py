import math

import mindspore as ms
import numpy as np

from opensora.nn.activations import gelu, sigmoid, silu

X = np.linspace(-12, 12, 2001)


def test_gelu_is_the_tanh_formula() -> None:
    expected = 0.5 * X * (1 + np.tanh(math.sqrt(2 / math.pi) * (X + 0.044715 * X**3)))
    np.testing.assert_allclose(
        gelu(ms.Tensor(X.astype(np.float32))).asnumpy(), expected, rtol=1e-5, atol=2e-6
    )


def test_gelu_is_near_the_exact_one() -> None:
    exact = np.array([0.5 * x * (1 + math.erf(x / math.sqrt(2))) for x in X])
    np.testing.assert_allclose(gelu(ms.Tensor(X.astype(np.float32))).asnumpy(), exact, atol=5e-4)


def test_silu() -> None:
    np.testing.assert_allclose(
        silu(ms.Tensor(X.astype(np.float32))).asnumpy(), X / (1 + np.exp(-X)), rtol=1e-5, atol=1e-6
    )


def test_sigmoid_is_exact_but_for_rounding() -> None:
    x = X.astype(np.float32)
    result = ms.jit(sigmoid)(ms.Tensor(x)).asnumpy()
    np.testing.assert_allclose(result, 1 / (1 + np.exp(-x.astype(np.float64))), rtol=6e-8)
    slopes = ms.grad(sigmoid)(ms.Tensor(x[900:1100])).asnumpy()
    np.testing.assert_allclose(slopes, 1 / (2 + 2 * np.cosh(x[900:1100].astype(np.float64))), rtol=3e-7)


def test_large_values_stay_finite() -> None:
    x = np.array([-1e4, -100.0, 0.0, 100.0, 1e4], np.float32)
    for function in (gelu, silu):
        np.testing.assert_array_equal(function(ms.Tensor(x)).asnumpy(), [0, 0, 0, 100, 1e4])
