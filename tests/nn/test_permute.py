import mindspore as ms
import numpy as np
import pytest

from opensora.engine.block import Block
from opensora.nn import permute as module
from opensora.nn.permute import permute


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("axes", [(0, 2, 1, 3), (2, 0, 1, 3)])
def test_permute_and_its_gradient(
    monkeypatch: pytest.MonkeyPatch, on_cpu: bool, axes: tuple[int, ...]
) -> None:
    monkeypatch.setattr(module, "ON_CPU", on_cpu)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)

    def turn(weights: object, x: ms.Tensor) -> ms.Tensor:
        return permute(x, axes)

    block = Block(turn)
    result = block({}, ms.Tensor(x)).asnumpy()
    np.testing.assert_array_equal(result, x.transpose(axes))
    gradient = rng.standard_normal(result.shape).astype(np.float32)
    _, (by_x,) = block.gradient({}, (ms.Tensor(x),), ms.Tensor(gradient))
    np.testing.assert_array_equal(by_x.asnumpy(), gradient.transpose(np.argsort(axes)))
