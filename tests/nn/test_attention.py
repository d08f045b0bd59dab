import inspect
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import ops

from opensora.nn import attention as module
from opensora.nn.attention import attention, flash_attention, merge_heads, split_heads

INSTALLED = inspect.signature(ops.flash_attention_score)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def expected(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, bias: Any = 0.0, scale: float | None = None
) -> np.ndarray:
    scores = (query.shape[-1] ** -0.5 if scale is None else scale) * query @ key.swapaxes(-1, -2) + bias
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ value


def tensors(*arrays: np.ndarray, dtype: Any = np.float32) -> list[ms.Tensor]:
    return [ms.Tensor(array.astype(dtype)) for array in arrays]


def key_mask() -> np.ndarray:
    """(2, 1, 1, 6): the second row keeps no key, where the sum with the bias keeps all."""
    mask = np.zeros((2, 1, 1, 6))
    mask[0, ..., 4:] = -10000.0
    mask[1] = -10000.0
    return mask


def test_heads_are_split_and_merged() -> None:
    x = np.arange(2 * 3 * 8, dtype=np.float32).reshape(2, 3, 8)
    heads = split_heads(ms.Tensor(x), 2)
    assert heads.shape == (2, 2, 3, 4)
    np.testing.assert_array_equal(heads.asnumpy()[1, 1, 2], x[1, 2, 4:])
    np.testing.assert_array_equal(merge_heads(heads).asnumpy(), x)


@pytest.mark.parametrize("scale", [None, 1.0])
@pytest.mark.parametrize("bias", [None, "keys", "positions"])
def test_attention_is_the_formula(bias: str | None, scale: float | None) -> None:
    query, key, value = random(2, 3, 5, 8), random(2, 3, 6, 8, seed=1), random(2, 3, 6, 8, seed=2)
    array = {None: None, "keys": key_mask(), "positions": random(1, 3, 5, 6)}[bias]
    result = attention(*tensors(query, key, value), *([] if array is None else tensors(array)), scale=scale)
    # A row of -10000 everywhere leaves the scores only the digits of a float32 near that number.
    atol = 2e-3 if bias == "keys" else 2e-6
    np.testing.assert_allclose(
        result.asnumpy(), expected(query, key, value, 0 if array is None else array, scale), atol=atol
    )


def test_gradients_of_attention() -> None:
    arrays = random(1, 2, 3, 4), random(1, 2, 5, 4, seed=1), random(1, 2, 5, 4, seed=2), random(1, 2, 3, 5)
    by_output = random(1, 2, 3, 4, seed=3)
    gradients = ms.grad(
        lambda *x: (attention(*x) * ms.Tensor(by_output.astype(np.float32))).sum(), (0, 1, 2, 3)
    )(*tensors(*arrays))
    for place, gradient in enumerate(gradients):
        direction = random(*arrays[place].shape, seed=4)

        def loss(distance: float, place: int = place, direction: np.ndarray = direction) -> float:
            moved = [array + distance * direction if i == place else array for i, array in enumerate(arrays)]
            return float((expected(*moved) * by_output).sum())

        slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
        assert float((gradient.asnumpy() * direction).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-5)


def stand_in(*args: Any, **options: Any) -> Any:
    """The operator as documented, in float64, with checks of its documented arguments."""
    call = INSTALLED.bind(*args, **options)
    call.apply_defaults()
    given = call.arguments
    query, key, value, mask = (given[name] for name in ("query", "key", "value", "attn_mask"))
    batch, heads, length, depth = query.shape
    assert given["input_layout"] == "BNSD" and given["head_num"] == heads
    assert query.dtype == key.dtype == value.dtype == ms.float16 and key.shape == value.shape
    assert batch <= 2048 and depth % 16 == 0 and depth <= 512
    assert given["keep_prob"] == 1.0 and given["sparse_mode"] == 0
    assert all(
        given[name] is None
        for name in (
            "real_shift",
            "drop_mask",
            "padding_mask",
            "prefix",
            "actual_seq_qlen",
            "actual_seq_kvlen",
        )
    )
    discard = np.zeros((batch, 1, length, key.shape[2]), bool)
    if mask is not None:
        assert mask.dtype == ms.bool_ and mask.shape == discard.shape
        discard = mask.asnumpy()
    q, k, v = (value.asnumpy().astype(np.float64) for value in (query, key, value))
    return ms.Tensor(
        expected(q, k, v, np.where(discard, -np.inf, 0.0), given["scalar_value"]).astype(np.float16)
    )


@pytest.mark.parametrize("depth", [16, 32, 72])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_flash_attention_is_the_fallback(
    monkeypatch: pytest.MonkeyPatch, depth: int, masked: bool, scale: float | None
) -> None:
    monkeypatch.setattr(ops, "flash_attention_score", stand_in)
    monkeypatch.setattr(module, "ON_ASCEND", True)
    arrays = tensors(
        random(2, 3, 5, depth),
        random(2, 3, 6, depth, seed=1),
        random(2, 3, 6, depth, seed=2),
        dtype=np.float16,
    )
    bias = tensors(key_mask())[0] if masked else None
    flash = attention(*arrays, bias, scale)
    assert flash.dtype == ms.float16 and flash.shape == (2, 3, 5, depth)
    whole = attention(*(array.astype(ms.float32) for array in arrays), bias, scale)
    # Half precision holds eleven bits; the row without a key is the fallback's least exact.
    np.testing.assert_allclose(flash.asnumpy().astype(np.float32), whole.asnumpy(), rtol=1e-3, atol=3e-3)


def test_a_mask_of_one_row_serves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "flash_attention_score", stand_in)
    arrays = tensors(
        random(2, 1, 3, 16), random(2, 1, 6, 16, seed=1), random(2, 1, 6, 16, seed=2), dtype=np.float16
    )
    bias = tensors(key_mask()[:1])[0]
    whole = attention(*(array.astype(ms.float32) for array in arrays), bias)
    flash = flash_attention(*arrays, bias, 0.25)
    np.testing.assert_allclose(flash.asnumpy().astype(np.float32), whole.asnumpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("query", "dtype", "bias"),
    [
        ((1, 1, 2, 16), np.float32, None),
        ((1, 1, 2, 528), np.float16, None),
        ((2049, 1, 2, 16), np.float16, None),
        ((1, 2, 2, 16), np.float16, (1, 2, 2, 2)),
        ((1, 2, 2, 16), np.float16, (1, 1, 2, 2)),
    ],
)
def test_what_the_operator_does_not_take_goes_the_other_way(
    monkeypatch: pytest.MonkeyPatch, query: tuple[int, ...], dtype: Any, bias: tuple[int, ...] | None
) -> None:
    monkeypatch.setattr(module, "ON_ASCEND", True)
    monkeypatch.setattr(module, "flash_attention", None)
    x = ms.Tensor(np.zeros(query, dtype))
    added = None if bias is None else ms.Tensor(np.zeros(bias, np.float32))
    assert attention(x, x, x, added).shape == query


def test_a_cpu_never_takes_the_operator() -> None:
    assert not module.ON_ASCEND
