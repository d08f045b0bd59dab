"""Mixed precision: half-precision copies of float32 master weights, and a loss scale against underflow.

The loss is multiplied by the scale before the backward pass and the gradients are divided by it
(arXiv:1710.03740).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from opensora import runtime
from opensora.engine import Engine, choose_training_engine
from opensora.nn import Tensor
from opensora.train.denoiser_options import DenoiserOptions
from opensora.train.options import PrecisionOptions

ms = runtime.mindspore()


def check_precision(options: DenoiserOptions) -> None:
    """Raises ValueError now, and not after everything is loaded, as `training_engine` does."""
    if options.number_format != "fp32":
        training_engine(options)


def training_engine(options: DenoiserOptions) -> Engine:
    """The engine that the options name.

    Raises ValueError for a number format that the engine or the device does not compute in.
    """
    engine = choose_training_engine(options.engine_of_mode, options.number_format)
    weight_dtype(options, engine)
    return engine


def weight_dtype(options: DenoiserOptions, engine: Engine) -> Any:
    """MindSpore's dtype of the weights to compute with: OpenVINO rounds what it multiplies itself."""
    return ms.float32 if engine.name == "openvino" else runtime.compute_dtype(options.number_format)


def compute_weights(weights: Mapping[str, Tensor], dtype: Any, level: str) -> dict[str, Tensor]:
    """The weights to compute with: O2 casts all to `dtype`, O1 the matrices of linear layers, O0 none."""
    if level == "O0" or dtype == ms.float32:
        return dict(weights)
    return {
        name: value.astype(dtype) if level == "O2" or _is_matrix(name, value) else value
        for name, value in weights.items()
    }


def _is_matrix(name: str, value: Tensor) -> bool:
    return name.endswith(".weight") and len(value.shape) == 2


class LossScaler:
    """A factor on the loss, lowered after an overflow and raised after a number of steps without one."""

    def __init__(self, options: PrecisionOptions) -> None:
        """Without init_loss_scale it starts at 65536 for fp16, and is a constant 1 for other formats."""
        self.scale = options.init_loss_scale or (65536.0 if options.number_format == "fp16" else 1.0)
        self.factor, self.window = options.loss_scale_factor, options.scale_window
        self.dynamic = options.loss_scaler_type == "dynamic" and bool(
            options.init_loss_scale or options.number_format == "fp16"
        )
        self.finite_steps = 0

    def update(self, finite: bool) -> None:
        """Adapt the scale. finite: True if all gradients of the step were."""
        if not self.dynamic:
            return
        self.finite_steps = self.finite_steps + 1 if finite else 0
        if not finite:
            self.scale = max(self.scale / self.factor, 1.0)
        elif self.finite_steps == self.window:
            self.scale, self.finite_steps = self.scale * self.factor, 0

    def state_arrays(self) -> dict[str, np.ndarray]:
        return {"loss_scale": np.array(self.scale), "finite_steps": np.array(self.finite_steps)}

    def load_state_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.scale, self.finite_steps = float(arrays["loss_scale"]), int(arrays["finite_steps"])
