"""AdamW over one plain dict of weights, with clipping by the global norm and learning rate schedules.

An optimizer sorts the weights into groups, each with a weight decay and an update rule, and updates each
group as one vector. `muon.py` adds a second rule.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from opensora.nn import Tensor
from opensora.nn.flat import Layout, ParameterSharding, square_sum
from opensora.runtime import mindspore
from opensora.train.options import OptimizerOptions
from opensora.weights.shards import save_shard

ms = mindspore()
ops = ms.ops

FIRST, SECOND = "exp_avg", "exp_avg_sq"
"""Names of the moments in checkpoints, as PyTorch has them. Every update rule has the first."""


def learning_rate(options: OptimizerOptions, step: int, max_steps: int) -> float:
    """The learning rate of optimizer step `step`, counted from 0."""
    warmup = options.warmup_steps(max_steps)
    if step < warmup:
        return options.learning_rate * (step + 1) / warmup
    if options.lr_scheduler == "constant":
        return options.learning_rate
    decay_steps = options.lr_decay_steps or max(1, max_steps - warmup)
    done = min(1.0, (step - warmup) / decay_steps)
    share = 0.5 * (1 + math.cos(math.pi * done)) if options.lr_scheduler == "cosine" else 1 - done
    return options.end_learning_rate + (options.learning_rate - options.end_learning_rate) * share


def clip_scale(norm: float, max_norm: float) -> float:
    """The factor that brings gradients of global norm `norm` down to `max_norm`; 0 disables clipping."""
    return min(1.0, max_norm / (norm + 1e-6)) if max_norm > 0 else 1.0


class Step(NamedTuple):
    """The numbers of one update that are the same for all groups."""

    number: int
    """Counted from 1."""
    learning_rate: float
    gradient_scale: float
    """Factor on the gradients: clipping and the inverse of the loss scale."""


class UpdateRule(Protocol):
    """The update of a group's weights. Vectors are this device's parts, (part,)."""

    @property
    def name(self) -> str: ...

    @property
    def moments(self) -> tuple[str, ...]:
        """Names of the vectors that the rule carries from step to step; FIRST is one of them."""

    def __call__(
        self,
        group: "ParameterGroup",
        weights: Tensor,
        gradient: Tensor,
        moments: Sequence[Tensor],
        step: Step,
    ) -> tuple[Tensor, ...]:
        """(weights, *moments) after the step."""


class ParameterGroup(NamedTuple):
    """Weights that share a weight decay and an update rule."""

    weight_decay: float
    rule: UpdateRule
    layout: Layout


class Optimizer(ABC):
    """Updates a dict of weights in place. Subclasses choose the update rule of each weight.

    options: a dataclass with the options of the optimizer. max_steps: length of the run, for the schedule.
    sharding: which part of each group's vector this device updates, and how it exchanges gradients and
    weights with the others; by default it updates all of it. masters: keep float32 copies of this device's
    part of the weights from the first step on, so that the caller may round the weights after each step.
    """

    def __init__(
        self,
        options: OptimizerOptions,
        max_steps: int = 1,
        sharding: ParameterSharding | None = None,
        masters: bool = False,
    ) -> None:
        self.options = options
        self.sharding = sharding or ParameterSharding()
        self.max_steps = max_steps
        self.step = 0
        self._groups: list[ParameterGroup] = []
        self._moments: list[list[Tensor]] = []
        self._keeps_masters, self._masters = masters, dict[int, Tensor]()

    @abstractmethod
    def rule_of(self, name: str, shape: Sequence[int]) -> UpdateRule:
        """The update rule of a weight."""

    def update(
        self, weights: dict[str, Tensor], gradients: Mapping[str, Tensor], loss_scale: float = 1.0
    ) -> tuple[float, float]:
        """Replace each weight that has a gradient. Returns (global norm before clipping, learning rate).

        The gradients are those of the loss times `loss_scale`; the norm and the update are without it. If the
        norm is not finite, nothing changes: no weight, no moment, and not the step.
        """
        self._arrange(gradients)
        vectors = [self.sharding.reduce_mean(group.layout.pack(gradients)) for group in self._groups]
        norm = math.sqrt(self.sharding.all_sum(sum(map(square_sum, vectors)))) / loss_scale
        rate = learning_rate(self.options, self.step, self.max_steps)
        if not math.isfinite(norm):
            return norm, rate
        self.step += 1
        step = Step(self.step, rate, clip_scale(norm, self.options.max_grad_norm) / loss_scale)
        for i, (group, gradient) in enumerate(zip(self._groups, vectors, strict=True)):
            own = self._masters[i] if i in self._masters else self.sharding.local(group.layout.pack(weights))
            updated, *self._moments[i] = group.rule(group, own, gradient, self._moments[i], step)
            if self._keeps_masters:
                self._masters[i] = updated
            weights.update(group.layout.unpack(self.sharding.gather(updated, group.layout.length)))
        return norm, rate

    def _arrange(self, tensors: Mapping[str, Tensor | np.ndarray]) -> None:
        """On the first step, sort the names into groups, with moments of zero."""
        if self._groups:
            return
        rules = {name: self.rule_of(name, value.shape) for name, value in tensors.items()}
        keys = {name: (self._weight_decay(value.shape), rules[name].name) for name, value in tensors.items()}
        for key in sorted(set(keys.values())):
            names = sorted(name for name in keys if keys[name] == key)
            layout = Layout({name: tensors[name] for name in names})
            group = ParameterGroup(key[0], rules[names[0]], layout)
            self._groups.append(group)
            length = self.sharding.local_length(layout.length)
            self._moments.append([ops.zeros(length, ms.float32) for _ in group.rule.moments])

    def _weight_decay(self, shape: Sequence[int]) -> float:
        exempt = self.options.group_strategy == "norm_and_bias" and len(shape) <= 1
        return 0.0 if exempt else self.options.weight_decay

    def num_moments(self, weights: Mapping[str, Tensor]) -> int:
        """Values that all devices together carry from step to step for these weights."""
        return sum(
            len(self.rule_of(name, value.shape).moments) * value.size for name, value in weights.items()
        )

    def exact(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights, with the float32 masters in place of rounded ones."""
        exact = dict(weights)
        for i, master in self._masters.items():
            layout = self._groups[i].layout
            exact.update(layout.unpack(self.sharding.gather(master, layout.length)))
        return exact

    def write_shard(self, folder: Path, prefix: str = "") -> None:
        """Write this device's part of the moments as a file that `ShardedState(folder, prefix)` reads."""
        parts = [
            {name: moment.asnumpy() for name, moment in zip(group.rule.moments, moments, strict=True)}
            for group, moments in zip(self._groups, self._moments, strict=True)
        ]
        shapes = [group.layout.shapes for group in self._groups]
        numbers = {"step": np.array(self.step, np.int64)}
        save_shard(folder, self.sharding.rank, self.sharding.ranks, shapes, parts, numbers, prefix)

    def state_arrays(self) -> dict[str, np.ndarray]:
        """Moments as `<weight>.exp_avg` and `<weight>.exp_avg_sq`; the number of steps taken as `step`."""
        arrays = {"step": np.array(self.step, np.int64)}
        for group, moments in zip(self._groups, self._moments, strict=True):
            for moment, vector in zip(group.rule.moments, moments, strict=True):
                for name, value in group.layout.unpack_arrays(vector).items():
                    arrays[f"{name}.{moment}"] = value
        return arrays

    def load_state_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from `state_arrays`, or from the files of any number of devices as one `ShardedState`.

        Raises ValueError for a missing moment.
        """
        self.step = int(arrays["step"])
        self._groups, self._moments, self._masters = [], [], {}
        saved = {
            moment: {
                name.removesuffix(f".{moment}"): arrays[name]
                for name in arrays
                if name.endswith(f".{moment}")
            }
            for moment in (FIRST, SECOND)
        }
        self._arrange(saved[FIRST])
        for i, group in enumerate(self._groups):
            for moment in group.rule.moments:
                missing = [name for name in group.layout.shapes if name not in saved[moment]]
                if missing:
                    raise ValueError(
                        f"the saved optimizer has no {moment} of {missing[0]}, so it was another one: "
                        "continue with the --optim of that run"
                    )
            self._moments[i] = [
                ms.Tensor(self.sharding.local(group.layout.pack_arrays(saved[moment])))
                for moment in group.rule.moments
            ]


class AdamWRule:
    """AdamW with bias correction (arXiv:1711.05101, algorithm 2).

    The decay is multiplied by the learning rate, as in PyTorch.
    """

    name = "adamw"
    moments = (FIRST, SECOND)

    def __init__(self, betas: tuple[float, float], eps: float) -> None:
        self.betas, self.eps = betas, eps

    def __call__(
        self, group: ParameterGroup, weights: Tensor, gradient: Tensor, moments: Sequence[Tensor], step: Step
    ) -> tuple[Tensor, ...]:
        beta1, beta2 = self.betas
        correction1, correction2 = 1 - beta1**step.number, 1 - beta2**step.number
        numbers = (
            1 - step.learning_rate * group.weight_decay,
            step.gradient_scale,
            step.learning_rate / correction1,
            1 / correction2,
            self.eps,
            1 - beta1,
            1 - beta2,
        )
        return tuple(_adamw(weights, gradient, *moments, ms.Tensor(np.array(numbers, np.float32))))


class AdamW(Optimizer):
    """AdamW for every weight."""

    def rule_of(self, name: str, shape: Sequence[int]) -> UpdateRule:
        return AdamWRule(self.options.betas, self.options.optim_eps)


@ms.jit
def _adamw(
    weight: Tensor, gradient: Tensor, first: Tensor, second: Tensor, numbers: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    keep, scale, rate, correction, eps, new1, new2 = ops.unstack(numbers)
    gradient = gradient * scale
    first = first + new1 * (gradient - first)
    second = second + new2 * (gradient * gradient - second)
    return weight * keep - rate * first / (ops.sqrt(second * correction) + eps), first, second
