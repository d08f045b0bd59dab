import math
from typing import Any

import mindspore as ms
import numpy as np
import pytest

from opensora.train.optim import AdamW, clip_scale, learning_rate
from opensora.train.options import OptimizerOptions
from opensora.train.t2v.options import TrainOptions

SHAPES = {"proj.weight": (3, 4), "proj.bias": (4,), "conv.weight": (2, 3, 1, 2)}


def arrays(seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: (scale * rng.standard_normal(shape)).astype(np.float32) for name, shape in SHAPES.items()}


def tensors(values: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: ms.Tensor(value) for name, value in values.items()}


def options(**changes: Any) -> OptimizerOptions:
    return OptimizerOptions(**{"learning_rate": 0.01, "lr_warmup_steps": 0, "weight_decay": 0.1, **changes})


def expected(settings: OptimizerOptions, steps: int, scale: float) -> dict[str, np.ndarray]:
    """Algorithm 2 of the paper in float64."""
    weights = {name: value.astype(np.float64) for name, value in arrays(0).items()}
    first = {name: np.zeros_like(value) for name, value in weights.items()}
    second = {name: np.zeros_like(value) for name, value in weights.items()}
    beta1, beta2 = settings.betas
    for step in range(1, steps + 1):
        gradients = {name: value.astype(np.float64) for name, value in arrays(step, scale).items()}
        norm = math.sqrt(sum(float((value**2).sum()) for value in gradients.values()))
        clip = min(1.0, settings.max_grad_norm / norm) if settings.max_grad_norm else 1.0
        for name, gradient in gradients.items():
            first[name] = beta1 * first[name] + (1 - beta1) * clip * gradient
            second[name] = beta2 * second[name] + (1 - beta2) * (clip * gradient) ** 2
            decay = settings.weight_decay if settings.group_strategy == "all" or gradient.ndim > 1 else 0.0
            adapted = (first[name] / (1 - beta1**step)) / (
                np.sqrt(second[name] / (1 - beta2**step)) + settings.optim_eps
            )
            weights[name] = (
                weights[name] * (1 - settings.learning_rate * decay) - settings.learning_rate * adapted
            )
    return weights


@pytest.mark.parametrize(
    ("changes", "scale"),
    [
        ({}, 0.01),
        ({}, 10.0),
        ({"max_grad_norm": 0.0}, 10.0),
        ({"group_strategy": "all"}, 1.0),
        ({"betas": (0.5, 0.9), "optim_eps": 1e-3}, 1.0),
    ],
    ids=["small gradients", "clipped", "not clipped", "decay for all", "other constants"],
)
def test_adamw_is_the_algorithm(changes: dict[str, Any], scale: float) -> None:
    settings = options(**changes)
    optimizer, weights = AdamW(settings), tensors(arrays(0))
    for step in range(1, 6):
        norm, rate = optimizer.update(weights, tensors(arrays(step, scale)))
        assert norm == pytest.approx(
            math.sqrt(sum(float((v.astype(float) ** 2).sum()) for v in arrays(step, scale).values())),
            rel=1e-6,
        )
        assert rate == settings.learning_rate
    for name, value in expected(settings, 5, scale).items():
        np.testing.assert_allclose(weights[name].asnumpy(), value, rtol=2e-6, atol=2e-7, err_msg=name)


def test_a_weight_without_a_gradient_stays() -> None:
    weights = tensors(arrays(0))
    kept = weights["proj.bias"]
    gradients = {name: value for name, value in tensors(arrays(1)).items() if name != "proj.bias"}
    AdamW(options(group_strategy="all")).update(weights, gradients)
    assert weights["proj.bias"] is kept


def test_a_saved_optimizer_goes_on_as_if_never_stopped() -> None:
    weights, optimizer = tensors(arrays(0)), AdamW(options())
    for step in range(1, 4):
        optimizer.update(weights, tensors(arrays(step)))
    saved = {name: value.copy() for name, value in optimizer.state_arrays().items()}
    assert set(saved) == {f"{name}.{kind}" for name in SHAPES for kind in ("exp_avg", "exp_avg_sq")} | {
        "step"
    }
    resumed, weights_again = (
        AdamW(options()),
        {name: ms.Tensor(value.asnumpy()) for name, value in weights.items()},
    )
    resumed.load_state_arrays(saved)
    for step in range(4, 7):
        optimizer.update(weights, tensors(arrays(step)))
        resumed.update(weights_again, tensors(arrays(step)))
    for name, value in weights.items():
        np.testing.assert_array_equal(weights_again[name].asnumpy(), value.asnumpy())


def test_weights_that_are_rounded_after_each_step_have_exact_masters() -> None:
    exact, rounded = tensors(arrays(0)), tensors(arrays(0))
    plain, keeping = AdamW(options()), AdamW(options(), masters=True)
    for step in range(1, 4):
        plain.update(exact, tensors(arrays(step)))
        keeping.update(rounded, tensors(arrays(step)))
        rounded = {name: value.astype(ms.float16) for name, value in rounded.items()}
    for name, value in keeping.exact(rounded).items():
        np.testing.assert_array_equal(value.asnumpy(), exact[name].asnumpy())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(value: float) -> None:
    weights, optimizer = tensors(arrays(0)), AdamW(options())
    optimizer.update(weights, tensors(arrays(1)))
    before, saved = dict(weights), {name: array.copy() for name, array in optimizer.state_arrays().items()}
    broken = arrays(2)
    broken["conv.weight"][1, 2, 0, 1] = value
    norm, _ = optimizer.update(weights, tensors(broken))
    assert not math.isfinite(norm) and weights == before
    for name, array in optimizer.state_arrays().items():
        np.testing.assert_array_equal(array, saved[name])


def test_a_scaled_loss_makes_the_same_step() -> None:
    plain, scaled = tensors(arrays(0)), tensors(arrays(0))
    norm, _ = AdamW(options()).update(plain, tensors(arrays(1, 10.0)))
    same, _ = AdamW(options()).update(scaled, tensors(arrays(1, 10.0 * 1024)), loss_scale=1024.0)
    assert same == pytest.approx(norm, rel=1e-6)
    for name, value in plain.items():
        np.testing.assert_allclose(scaled[name].asnumpy(), value.asnumpy(), rtol=1e-6, err_msg=name)


def test_clipping() -> None:
    assert clip_scale(4.0, 1.0) == pytest.approx(0.25, rel=1e-5)
    assert clip_scale(0.5, 1.0) == 1.0 and clip_scale(4.0, 0.0) == 1.0 and clip_scale(0.0, 1.0) == 1.0


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.25, 0.5, 0.75, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2]),
        (
            "cosine",
            [
                0.25,
                0.5,
                0.75,
                1.0,
                1.0,
                0.2 + 0.4 * (1 + math.sqrt(0.5)),
                0.6,
                0.2 + 0.4 * (1 - math.sqrt(0.5)),
                0.2,
            ],
        ),
    ],
)
def test_schedules(schedule: str, rates: list[float]) -> None:
    settings = options(learning_rate=1.0, end_learning_rate=0.2, lr_scheduler=schedule, lr_warmup_steps=4)
    assert [learning_rate(settings, step, 8) for step in range(9)] == pytest.approx(rates)
    assert learning_rate(settings, 100, 8) == pytest.approx(rates[-1])


def test_a_decay_shorter_than_the_run() -> None:
    settings = options(
        learning_rate=1.0, end_learning_rate=0.5, lr_scheduler="linear", lr_warmup_steps=2, lr_decay_steps=2
    )
    assert [learning_rate(settings, step, 100) for step in range(6)] == pytest.approx(
        [0.5, 1.0, 1.0, 0.75, 0.5, 0.5]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"lr_scheduler": "polynomial"},
            "lr_scheduler 'polynomial' is unknown: choose one of constant, cosine, linear",
        ),
        ({"group_strategy": "none"}, "group_strategy 'none' is unknown: choose one of norm_and_bias, all"),
        ({"lr_decay_steps": 0}, "lr_decay_steps 0 is too small: use 1 or more"),
        ({"learning_rate": -1.0}, "learning_rate -1.0 is too small: use 0 or more"),
        ({"max_grad_norm": float("nan")}, "max_grad_norm nan is too small: use 0 or more"),
        ({"ema_decay": 1.0}, "ema_decay 1.0 is too large: use less than 1"),
        ({"ema_decay": -0.1}, "ema_decay -0.1 is too small: use 0 or more"),
    ],
)
def test_options_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options(**changes)


def test_the_default_leaves_its_warm_up() -> None:
    options = OptimizerOptions(learning_rate=1.0)
    assert [options.warmup_steps(steps) for steps in (1, 9, 1000, 100000)] == [0, 0, 100, 1000]
    assert learning_rate(options, 99, 1000) == learning_rate(options, 100, 1000) == 1.0
    assert learning_rate(options, 0, 1) == 1.0
    given = {"model_path": "m", "vae_latent_folder": "l", "max_train_steps": 50}
    assert TrainOptions(**given, lr_warmup_steps=50).lr_warmup_steps == 50  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lr_warmup_steps 51 is longer than the run of max_train_steps 50"):
        TrainOptions(**given, lr_warmup_steps=51)  # type: ignore[arg-type]
