import mindspore as ms
import numpy as np
import pytest

from opensora.nn.linear import linear


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 3, 4, 5)])
def test_linear(shape: tuple[int, ...], bias: bool) -> None:
    rng = np.random.default_rng(0)
    x, weight, shift = (rng.standard_normal(size).astype(np.float32) for size in (shape, (7, 5), (7,)))
    weights = {"ff.weight": ms.Tensor(weight), "other.bias": ms.Tensor(shift)}
    if bias:
        weights["ff.bias"] = ms.Tensor(shift)
    result = linear(weights, "ff", ms.Tensor(x))
    assert result.shape == (*shape[:-1], 7)
    np.testing.assert_allclose(result.asnumpy(), x @ weight.T + (shift if bias else 0), rtol=1e-5, atol=1e-6)
