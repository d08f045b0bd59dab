from dataclasses import replace
from typing import Any

import mindspore as ms
import numpy as np
import pytest

from opensora.train.options import PrecisionOptions
from opensora.train.precision import (
    LossScaler,
    check_precision,
    compute_weights,
    training_engine,
    weight_dtype,
)
from opensora.train.t2v.options import TrainOptions

WEIGHTS = {"proj.weight": (3, 4), "proj.bias": (3,), "patch.weight": (2, 3, 1, 1), "table": (2, 3)}


@pytest.mark.parametrize(
    ("level", "half"),
    [("O0", set()), ("O1", {"proj.weight"}), ("O2", {"proj.weight", "proj.bias", "patch.weight", "table"})],
)
def test_what_is_computed_in_half_precision(level: str, half: set[str]) -> None:
    weights = {name: ms.Tensor(np.ones(shape, np.float32)) for name, shape in WEIGHTS.items()}
    cast = compute_weights(weights, ms.float16, level)
    assert {name for name, value in cast.items() if value.dtype == ms.float16} == half
    assert all(value.dtype == ms.float32 for value in weights.values())


def test_the_scale_falls_after_an_overflow_and_rises_after_a_while() -> None:
    scaler = LossScaler(PrecisionOptions(precision="fp16", scale_window=3))
    scales = []
    for finite in (True, False, False, True, True, True, True, True, False):
        scaler.update(finite)
        scales.append(scaler.scale / 65536)
    assert scales == [1, 0.5, 0.25, 0.25, 0.25, 0.5, 0.5, 0.5, 0.25]
    again = LossScaler(PrecisionOptions(precision="fp16", scale_window=3))
    again.load_state_arrays(scaler.state_arrays())
    assert (again.scale, again.finite_steps) == (scaler.scale, scaler.finite_steps)


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({}, 1.0),
        ({"precision": "bf16"}, 1.0),
        ({"global_bf16": True, "precision": "fp16"}, 1.0),
        ({"init_loss_scale": 8.0}, 8.0),
    ],
)
def test_scales_to_begin_with(settings: dict[str, object], scale: float) -> None:
    options = PrecisionOptions(**settings)  # type: ignore[arg-type]
    assert LossScaler(options).scale == scale


def test_a_static_scale_stays() -> None:
    scaler = LossScaler(PrecisionOptions(precision="fp16", loss_scaler_type="static", init_loss_scale=16.0))
    scaler.update(False)
    assert scaler.scale == 16.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "fp16"}, "precision 'fp16' is not one of OpenVINO's: choose fp32 or bf16"),
        ({"precision": "fp16", "engine": "mindspore"}, "precision 'fp16' is not supported on a CPU"),
        ({"precision": "bf16", "engine": "mindspore"}, "precision 'bf16' is not supported on a CPU"),
        ({"precision": "bf16", "mode": 1}, "precision 'bf16' is not supported on a CPU"),
        ({"precision": "bf16"}, "precision 'bf16' needs a processor that computes with it"),
    ],
)
def test_formats_that_nothing_here_computes_in(
    settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opensora.engine.openvino.capabilities", lambda: ["FP32"])
    options = TrainOptions(model_path="model", vae_latent_folder="latents", **settings)
    with pytest.raises(ValueError, match=message):
        check_precision(options)
    check_precision(replace(options, amp_level="O0"))


def test_openvino_gets_float32_weights_and_rounds_what_it_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opensora.engine.openvino.capabilities", lambda: ["FP32", "BF16"])
    options = TrainOptions(model_path="model", vae_latent_folder="latents", precision="bf16")
    engine = training_engine(options)
    assert (engine.name, engine.precision) == ("openvino", "bf16")
    assert weight_dtype(options, engine) == ms.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init_loss_scale": 0.5}, "init_loss_scale 0.5 is too small: use 1 or more"),
        ({"loss_scale_factor": 1.0}, "loss_scale_factor 1.0 is too small: use more than 1"),
        ({"scale_window": 0}, "scale_window 0 is too small: use 1 or more"),
    ],
)
def test_scales_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrecisionOptions(**settings)  # type: ignore[arg-type]
