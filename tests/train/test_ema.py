import mindspore as ms
import numpy as np

from opensora.train.ema import EMA


def test_the_average_follows_the_formula() -> None:
    rng = np.random.default_rng(0)
    start = rng.standard_normal((3, 4)).astype(np.float32)
    ema, expected = EMA({"w": ms.Tensor(start)}, 0.5), start.astype(np.float64)
    for step in range(1, 12):
        weight = rng.standard_normal((3, 4)).astype(np.float32)
        ema.update({"w": ms.Tensor(weight)}, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
    np.testing.assert_allclose(ema.weights["w"].asnumpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_average_is_apart_from_the_weights() -> None:
    weights = {"w": ms.Tensor(np.zeros(2, np.float32))}
    ema = EMA(weights, 0.9)
    weights["w"] = ms.Tensor(np.ones(2, np.float32))
    assert not ema.weights["w"].asnumpy().any()
