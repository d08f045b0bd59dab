"""Muon: what is orthogonal, whose weights it moves, and that its state is saved and shared out."""

from typing import Any

import mindspore as ms
import numpy as np
import pytest

from opensora.engine import ENGINES, choose_training_engine, open_engine
from opensora.engine.openvino import capabilities
from opensora.train import muon
from opensora.train.muon import Muon, make_optimizer, step_length, updates
from opensora.train.optim import AdamW
from opensora.train.options import OptimizerOptions

SHAPES = {
    "decoder.up.0.block.1.conv1.conv.weight": (8, 4, 3, 2, 2),
    "transformer_blocks.3.attn1.to_q.weight": (12, 6),
    "transformer_blocks.3.attn1.to_q.bias": (12,),
    "transformer_blocks.3.scale_shift_table": (6, 4),
    "decoder.conv_out.conv.weight": (3, 4, 3),
}
HIDDEN = list(SHAPES)[:2]


def arrays(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def tensors(values: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: ms.Tensor(value) for name, value in values.items()}


def options(**changes: Any) -> OptimizerOptions:
    return OptimizerOptions(
        **{"learning_rate": 0.01, "lr_warmup_steps": 0, "weight_decay": 0.1, "optim": "muon", **changes}
    )


def one(weight: Any, engine: str = "mindspore", precision: str = "fp32") -> np.ndarray:
    """The update of a weight, without the length of the step."""
    update = updates({"weight": weight}, choose_training_engine(engine, precision))["weight"].asnumpy()
    return np.asarray(update) / step_length(weight.shape)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shape", [(8, 8), (4, 50), (50, 4), (6, 5, 3, 3), (128, 16, 3, 3, 3)])
@pytest.mark.parametrize("size", [1e-6, 1.0])
def test_singular_values_become_about_one(shape: tuple[int, ...], size: float, engine: str) -> None:
    """The singular vectors stay the same."""
    matrix = np.random.default_rng(0).standard_normal((shape[0], int(np.prod(shape[1:]))))
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    matrix = (left * np.linspace(1, 0.1, len(right))) @ right
    result = one(ms.Tensor((size * matrix).astype(np.float32).reshape(shape)), engine)
    assert result.shape == shape
    factors = left.T @ result.reshape(matrix.shape) @ right.T
    assert np.diag(factors).min() > 0.67 and np.diag(factors).max() < 1.14
    np.testing.assert_allclose(factors, np.diag(np.diag(factors)), atol=1e-4)


@pytest.mark.parametrize("shape", [(8, 8), (4, 50), (50, 4)])
def test_an_engine_that_multiplies_in_bfloat16_computes_updates_in_float32(shape: tuple[int, int]) -> None:
    precision = "bf16" if "BF16" in capabilities() else "fp32"
    weight = ms.Tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    np.testing.assert_allclose(one(weight, "openvino", precision), one(weight, "openvino"), atol=1e-5)


def test_nothing_comes_of_nothing() -> None:
    assert not one(ms.Tensor(np.zeros((4, 6), np.float32))).any()


def test_matrices_of_one_shape_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tall and wide ones alike, in parts of a bounded size, and each gets what it would get alone."""
    rng = np.random.default_rng(1)
    shapes = {"a": (4, 6), "b": (6, 4), "c": (5, 5), "d": (4, 3, 2), "e": (4, 6)}
    weights = {
        name: ms.Tensor(rng.standard_normal(shape).astype(np.float32)) for name, shape in shapes.items()
    }
    together = updates(weights, open_engine())
    monkeypatch.setattr(muon, "VALUES_AT_ONCE", 48)
    in_parts = updates(weights, open_engine())
    assert list(together) == list(weights)
    for name, weight in weights.items():
        for result in (together[name], in_parts[name]):
            assert result.shape == shapes[name]
            alone = step_length(weight.shape) * one(weight)
            np.testing.assert_allclose(result.asnumpy(), alone, atol=1e-5)


def muon_steps(name: str, steps: int) -> np.ndarray:
    """The published algorithm in float64: Nesterov momentum 0.95, five quintic iterations."""
    weight, momentum = arrays(0)[name].astype(np.float64), np.zeros(SHAPES[name])
    for step in range(1, steps + 1):
        gradient = arrays(step)[name].astype(np.float64)
        momentum = 0.95 * momentum + 0.05 * gradient
        matrix = (0.95 * momentum + 0.05 * gradient).reshape(len(weight), -1)
        x = matrix.T if len(matrix) > matrix.shape[1] else matrix
        x = x / np.linalg.norm(x)
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        update = (x.T if len(matrix) > matrix.shape[1] else x).reshape(weight.shape)
        length = 0.2 * np.sqrt(max(weight.shape[:2]))
        weight = weight * (1 - 0.01 * 0.1) - 0.01 * length * update
    return weight


def test_matrices_inside_move_as_published_and_all_else_by_adamw() -> None:
    weights, plain = tensors(arrays(0)), tensors(arrays(0))
    optimizer, adamw = Muon(options(max_grad_norm=0.0)), AdamW(options(max_grad_norm=0.0))
    for step in range(1, 4):
        gradients = arrays(step)
        optimizer.update(weights, tensors(gradients))
        adamw.update(plain, tensors(gradients))
    for name in HIDDEN:
        np.testing.assert_allclose(weights[name].asnumpy(), muon_steps(name, 3), atol=2e-6)
    for name in SHAPES.keys() - HIDDEN:
        np.testing.assert_array_equal(weights[name].asnumpy(), plain[name].asnumpy())


def test_a_step_is_as_long_as_one_of_adamw() -> None:
    """The root mean square of its elements is about 0.2 of the learning rate."""
    step = step_length((64, 64)) * one(
        ms.Tensor(np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32))
    )
    assert 0.1 < float(np.sqrt(np.mean(step**2))) < 0.3
    assert step_length((64, 64, 3, 3, 3)) == step_length((64, 64))


def test_it_continues_from_its_state() -> None:
    weights, optimizer = tensors(arrays(0)), Muon(options())
    for step in (1, 2):
        optimizer.update(weights, tensors(arrays(step)))
    state = optimizer.state_arrays()
    assert {name for name in state if name.endswith("exp_avg_sq")} == {
        f"{name}.exp_avg_sq" for name in SHAPES.keys() - HIDDEN
    }
    again, resumed = {name: ms.Tensor(value.asnumpy()) for name, value in weights.items()}, Muon(options())
    resumed.load_state_arrays(state)
    for step in (3, 4):
        optimizer.update(weights, tensors(arrays(step)))
        resumed.update(again, tensors(arrays(step)))
    for name, value in weights.items():
        np.testing.assert_array_equal(again[name].asnumpy(), value.asnumpy())
    with pytest.raises(ValueError, match=f"no exp_avg_sq of {HIDDEN[0]}, .*: continue with the --optim"):
        AdamW(options(optim="adamw")).load_state_arrays(state)


def test_the_option_chooses() -> None:
    assert type(make_optimizer(options())) is Muon
    for name in ("adamw", "adam", "adamw_re"):
        assert type(make_optimizer(options(optim=name))) is AdamW
    with pytest.raises(ValueError, match="optim 'sgd' is unknown: choose one of adamw"):
        options(optim="sgd")
