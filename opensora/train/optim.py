"""AdamW, clipping by the global norm, and learning-rate schedules, over one plain dict of weights."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from opensora.nn.flat import Layout, Whole, square_sum
from opensora.runtime import mindspore
from opensora.train.options import OptimizerOptions
from opensora.weights.shards import save_shard

ms = mindspore()
ops = ms.ops

MOMENTS = ("exp_avg", "exp_avg_sq")


def learning_rate(options: OptimizerOptions, step: int, max_steps: int) -> float:
    """The rate of optimizer step `step`, counted from 0."""
    if step < options.lr_warmup_steps:
        return options.learning_rate * (step + 1) / options.lr_warmup_steps
    if options.lr_scheduler == "constant":
        return options.learning_rate
    decay_steps = options.lr_decay_steps or max(1, max_steps - options.lr_warmup_steps)
    done = min(1.0, (step - options.lr_warmup_steps) / decay_steps)
    share = 0.5 * (1 + math.cos(math.pi * done)) if options.lr_scheduler == "cosine" else 1 - done
    return options.end_learning_rate + (options.learning_rate - options.end_learning_rate) * share


def clip_scale(norm: float, max_norm: float) -> float:
    """What gradients of this global norm are multiplied with to stay within `max_norm` (0: no limit)."""
    return min(1.0, max_norm / (norm + 1e-6)) if max_norm > 0 else 1.0


class Group(NamedTuple):
    """Weights that are updated alike."""

    decay: float
    hidden: bool
    """Matrices inside the network, which `train/muon.py` treats differently."""
    layout: Layout


class AdamW:
    """AdamW with bias correction (arXiv:1711.05101, algorithm 2): the decay is multiplied by the learning rate, as in PyTorch.

    The weights of each decay group are one vector during the update, and so are their moments.
    """

    def __init__(
        self,
        options: OptimizerOptions,
        max_steps: int = 1,
        shares: Whole | None = None,
        masters: bool = False,
    ) -> None:
        """shares: which part of the vectors this device updates, and how it hears of the others' gradients and parts.

        masters: keep this device's part of the weights in float32 from the first step on, so that the caller may round them after each.
        """
        self.options = options
        self.shares = shares or Whole()
        self.max_steps = max_steps
        self.step = 0
        self._groups: list[Group] = []
        self._moments: list[list[Any]] = []
        self._keeps_masters, self._masters = masters, dict[int, Any]()

    def update(
        self, weights: dict[str, Any], gradients: Mapping[str, Any], loss_scale: float = 1.0
    ) -> tuple[float, float]:
        """One step in place: each weight with a gradient is replaced in `weights`. Returns (norm before clipping, learning rate).

        loss_scale: what the loss was multiplied with; norm and update are those of gradients divided by it. Where the norm is
        not finite, nothing is changed: no weight, no moment, and not the step.
        """
        options = self.options
        self._arrange(gradients)
        vectors = [self.shares.mean(group.layout.pack(gradients)) for group in self._groups]
        norm = math.sqrt(self.shares.total(sum(map(square_sum, vectors)))) / loss_scale
        rate = learning_rate(options, self.step, self.max_steps)
        if not math.isfinite(norm):
            return norm, rate
        self.step += 1
        scale = clip_scale(norm, options.max_grad_norm) / loss_scale
        for i, (group, gradient) in enumerate(zip(self._groups, vectors, strict=True)):
            own = self._masters[i] if i in self._masters else self.shares.part(group.layout.pack(weights))
            updated, *self._moments[i] = self._moved(group, own, gradient, self._moments[i], scale, rate)
            if self._keeps_masters:
                self._masters[i] = updated
            weights.update(group.layout.unpack(self.shares.whole(updated, group.layout.length)))
        return norm, rate

    def _moved(
        self, group: Group, own: Any, gradient: Any, moments: Sequence[Any], scale: float, rate: float
    ) -> tuple[Any, ...]:
        """This device's part of a group's weights after the step, and its moments. scale: what the gradient is to be multiplied with."""
        beta1, beta2 = self.options.betas
        correction1, correction2 = 1 - beta1**self.step, 1 - beta2**self.step
        numbers = (
            1 - rate * group.decay,
            scale,
            rate / correction1,
            1 / correction2,
            self.options.optim_eps,
            1 - beta1,
            1 - beta2,
        )
        return tuple(_adamw(own, gradient, *moments, ms.Tensor(np.array(numbers, np.float32))))

    def _is_hidden(self, name: str, shape: Sequence[int]) -> bool:
        """Whether the weight is in a group of its own kind."""
        return False

    def _arrange(self, tensors: Mapping[str, Any]) -> None:
        """Sort the names into groups of one decay each, with moments of zero, on the first step."""
        if self._groups:
            return
        decays = {
            name: 0.0
            if self.options.group_strategy == "norm_and_bias" and len(value.shape) <= 1
            else self.options.weight_decay
            for name, value in tensors.items()
        }
        kinds = {name: (decay, self._is_hidden(name, tensors[name].shape)) for name, decay in decays.items()}
        for kind in sorted(set(kinds.values())):
            group = Group(
                *kind, Layout({name: tensors[name] for name in sorted(kinds) if kinds[name] == kind})
            )
            self._groups.append(group)
            length = self.shares.length(group.layout.length)
            self._moments.append([ops.zeros(length, ms.float32) for _ in self._moments_of(group)])

    def _moments_of(self, group: Group) -> tuple[str, ...]:
        return MOMENTS[:1] if group.hidden else MOMENTS

    def exact(self, weights: Mapping[str, Any]) -> dict[str, Any]:
        """The weights, in float32 those that masters are kept of."""
        whole = dict(weights)
        for i, master in self._masters.items():
            layout = self._groups[i].layout
            whole.update(layout.unpack(self.shares.whole(master, layout.length)))
        return whole

    def write_shard(self, folder: Path, whose: str = "") -> None:
        """Write this device's part of the moments, as `ShardedState` reads it under the same `whose`."""
        parts = [
            dict(zip(MOMENTS, (moment.asnumpy() for moment in moments), strict=False))
            for moments in self._moments
        ]
        shapes = [group.layout.shapes for group in self._groups]
        save_shard(
            folder,
            self.shares.rank,
            self.shares.ranks,
            shapes,
            parts,
            {"step": np.array(self.step, np.int64)},
            whose,
        )

    def state_arrays(self) -> dict[str, np.ndarray]:
        """The moments, as `<weight>.exp_avg` and `<weight>.exp_avg_sq`, and the number of steps that were taken, `step`."""
        arrays = {"step": np.array(self.step, np.int64)}
        for group, moments in zip(self._groups, self._moments, strict=True):
            for kind, vector in zip(self._moments_of(group), moments, strict=True):
                arrays.update(
                    {f"{name}.{kind}": value for name, value in group.layout.unpack_arrays(vector).items()}
                )
        return arrays

    def load_state_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from `state_arrays`, or from the parts of any number of devices as one `ShardedState`.

        Raises ValueError where a moment is missing.
        """
        self.step = int(arrays["step"])
        self._groups, self._moments, self._masters = [], [], {}
        by_kind = [
            {name.removesuffix(f".{kind}"): arrays[name] for name in arrays if name.endswith(f".{kind}")}
            for kind in MOMENTS
        ]
        self._arrange(by_kind[0])
        for i, group in enumerate(self._groups):
            kinds = by_kind[: len(self._moments_of(group))]
            lacking = [name for name in group.layout.shapes if any(name not in moments for moments in kinds)]
            if lacking:
                raise ValueError(
                    f"the saved optimizer has no {MOMENTS[1]} of {lacking[0]}: it was of another kind, continue with its --optim"
                )
            self._moments[i] = [
                ms.Tensor(self.shares.part(group.layout.pack_arrays(moments))) for moments in kinds
            ]


@ms.jit
def _adamw(weight: Any, gradient: Any, first: Any, second: Any, numbers: Any) -> tuple[Any, Any, Any]:
    keep, scale, rate, correction, eps, new1, new2 = ops.unstack(numbers)
    gradient = gradient * scale
    first = first + new1 * (gradient - first)
    second = second + new2 * (gradient * gradient - second)
    return weight * keep - rate * first / (ops.sqrt(second * correction) + eps), first, second
