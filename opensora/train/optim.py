"""AdamW, clipping by the global norm, and learning-rate schedules, over one plain dict of weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from opensora.runtime import mindspore

ms = mindspore()
ops = ms.ops

SCHEDULES = ("constant", "cosine", "linear")


@dataclass(frozen=True)
class OptimizerOptions:
    """How weights move. Raises ValueError for values out of range."""

    learning_rate: float = 2e-5
    """Peak learning rate."""
    end_learning_rate: float = 0.0
    """Where the cosine and linear schedules end."""
    lr_scheduler: str = "constant"
    """constant, cosine or linear, after the warm-up."""
    lr_warmup_steps: int = 1000
    """Steps of linear warm-up from zero."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's decay rates of the first and second moment."""
    optim_eps: float = 1e-8
    """Adam's epsilon, added to the root of the second moment."""
    weight_decay: float = 0.01
    """Decoupled decay of matrices and kernels."""
    group_strategy: str = "norm_and_bias"
    """norm_and_bias: no decay for vectors (norms, biases, mix factors); all: decay for everything, as PyTorch's default."""
    max_grad_norm: float = 1.0
    """The gradients' global norm is clipped to this; 0 turns clipping off."""

    def __post_init__(self) -> None:
        if self.lr_scheduler not in SCHEDULES:
            raise ValueError(f"lr_scheduler {self.lr_scheduler!r} is unknown: choose one of {', '.join(SCHEDULES)}")
        if self.group_strategy not in ("norm_and_bias", "all"):
            raise ValueError(f"group_strategy {self.group_strategy!r} is unknown: choose norm_and_bias or all")
        for name in ("learning_rate", "end_learning_rate", "lr_warmup_steps", "optim_eps", "weight_decay", "max_grad_norm"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} {getattr(self, name)} must not be negative")


def learning_rate(options: OptimizerOptions, step: int, max_steps: int) -> float:
    """The rate of optimizer step `step`, counted from 0."""
    if step < options.lr_warmup_steps:
        return options.learning_rate * (step + 1) / options.lr_warmup_steps
    if options.lr_scheduler == "constant":
        return options.learning_rate
    done = min(1.0, (step - options.lr_warmup_steps) / max(1, max_steps - options.lr_warmup_steps))
    share = 0.5 * (1 + math.cos(math.pi * done)) if options.lr_scheduler == "cosine" else 1 - done
    return options.end_learning_rate + (options.learning_rate - options.end_learning_rate) * share


def global_norm(gradients: Mapping[str, Any]) -> float:
    """The Euclidean norm over all gradients together."""
    return math.sqrt(sum(float(_square_sum(gradient).asnumpy()) for gradient in gradients.values()))


def clip_scale(norm: float, max_norm: float) -> float:
    """What gradients of this global norm are multiplied with to stay within `max_norm` (0: no limit)."""
    return min(1.0, max_norm / (norm + 1e-6)) if max_norm > 0 else 1.0


class AdamW:
    """AdamW with bias correction (arXiv:1711.05101, algorithm 2): the decay is multiplied by the learning rate, as in PyTorch."""

    def __init__(self, options: OptimizerOptions, max_steps: int = 1) -> None:
        self.options = options
        self.max_steps = max_steps
        self.step = 0
        self.moments: dict[str, tuple[Any, Any]] = {}

    def update(self, weights: dict[str, Any], gradients: Mapping[str, Any]) -> tuple[float, float]:
        """One step in place: each weight with a gradient is replaced in `weights`. Returns (norm before clipping, learning rate)."""
        options = self.options
        norm = global_norm(gradients)
        rate = learning_rate(options, self.step, self.max_steps)
        beta1, beta2 = options.betas
        scale = clip_scale(norm, options.max_grad_norm)
        self.step += 1
        correction1, correction2 = 1 - beta1**self.step, 1 - beta2**self.step
        for name, gradient in gradients.items():
            weight = weights[name]
            first, second = self.moments.get(name) or (ops.zeros_like(weight), ops.zeros_like(weight))
            decay = options.weight_decay if options.group_strategy == "all" or weight.ndim > 1 else 0.0
            numbers = (scale, 1 - rate * decay, rate / correction1, 1 / correction2, options.optim_eps, 1 - beta1, 1 - beta2)
            weights[name], *moments = _adamw(weight, gradient, first, second, ms.Tensor(np.array(numbers, np.float32)))
            self.moments[name] = (moments[0], moments[1])
        return norm, rate

    def state_arrays(self) -> dict[str, np.ndarray]:
        """The moments, as `<weight>.exp_avg` and `<weight>.exp_avg_sq`."""
        named = ((f"{name}.{kind}", value) for name, pair in self.moments.items() for kind, value in zip(KINDS, pair, strict=True))
        return {name: value.asnumpy() for name, value in named}

    def load_state_arrays(self, arrays: Mapping[str, np.ndarray], step: int) -> None:
        """Continue from `state_arrays` of the step it was saved at."""
        self.step = step
        names = [name.removesuffix(f".{KINDS[0]}") for name in arrays if name.endswith(f".{KINDS[0]}")]
        self.moments = {name: tuple(ms.Tensor(arrays[f"{name}.{kind}"]) for kind in KINDS) for name in names}


KINDS = ("exp_avg", "exp_avg_sq")


@ms.jit
def _adamw(weight: Any, gradient: Any, first: Any, second: Any, numbers: Any) -> tuple[Any, Any, Any]:
    scale, keep, rate, correction, eps, new1, new2 = ops.unstack(numbers)
    gradient = gradient * scale
    first = first + new1 * (gradient - first)
    second = second + new2 * (gradient * gradient - second)
    return weight * keep - rate * first / (ops.sqrt(second * correction) + eps), first, second


@ms.jit
def _square_sum(gradient: Any) -> Any:
    return ops.sum(gradient * gradient)
