"""Sequence parallelism on time: each rank of a group holds some frames and images of the same samples.

All blocks but the temporal ones treat each frame by itself. A temporal block treats each patch by itself, so
the ranks exchange frames for patches before it and back after it (arXiv:2403.10266): in between, each rank
has all frames of some patches. Counts that the group does not divide are padded with zeros. Padded frames are
cut off before a temporal block, and the loss masks them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from opensora import runtime
from opensora.engine.block import Differentiable, Gradients, Pullback, Weights
from opensora.engine.tree import Tree
from opensora.nn import FrameExchange, Tensor, WorkSharing
from opensora.parallel.collectives import ProcessGroup

ms, ops = runtime.LazyMindSpore(), runtime.LazyMindSpore("ops")
T = TypeVar("T")


def shard_length(count: int, size: int) -> int:
    """The number of items on each of `size` ranks, padding included."""
    return -(-count // size)


def local_shard(x: np.ndarray, axis: int, group: ProcessGroup) -> np.ndarray:
    """This rank's part of an array along `axis`, padded with zeros to the same length on every rank."""
    length = shard_length(x.shape[axis], group.size)
    first = group.index * length
    part = np.take(x, range(first, min(first + length, x.shape[axis])), axis)
    missing = length - part.shape[axis]
    if not missing:
        return part
    return np.pad(part, [(0, missing if i == axis else 0) for i in range(x.ndim)])


def local_frames(x: np.ndarray, axis: int, frames: int, group: ProcessGroup) -> np.ndarray:
    """This rank's part of a video of `frames` frames, followed by its part of the images after the video."""
    video, images = np.split(x, [frames], axis)
    parts = [local_shard(video, axis, group)]
    if images.shape[axis]:
        parts.append(local_shard(images, axis, group))
    return np.concatenate(parts, axis)


def local_batch(batch: Mapping[str, Any], group: ProcessGroup) -> dict[str, Any]:
    """This rank's part of a training batch (`train.t2v.Batch`, arrays on the host); all ranks have the same
    batch.

    Adds `share` (B,): the fraction of a sample's loss elements on this rank, so that the losses of the ranks
    add up to that of the sample.
    """
    images = batch.get("num_images", 0)
    frames = batch["latents"].shape[2] - images
    local = {**batch, "num_images": shard_length(images, group.size)}
    for name in ("latents", "noise"):
        local[name] = local_frames(batch[name], 2, frames, group)
    mask = batch.get("latent_mask")
    if mask is None:
        mask = np.ones(np.delete(batch["latents"].shape, 1), np.float32)
    local["latent_mask"] = local_frames(mask, 1, frames, group)  # zeros for padding
    axes = (1, 2, 3)
    local["share"] = (local["latent_mask"].sum(axes) / np.maximum(mask.sum(axes), 1)).astype(np.float32)
    for name in ("text_embeds", "text_mask"):
        if images and batch.get(name) is not None:
            for_video, for_images = np.split(batch[name], [1], 1)
            local[name] = np.concatenate((for_video, local_shard(for_images, 1, group)), 1)
    return local


def valid_frames(frames: int, images: int, group: ProcessGroup) -> np.ndarray:
    """True for each of this rank's frames and images that is real, not padding: bool (t+n,)."""
    return local_frames(np.ones(frames + images, bool), 0, frames, group)


def expand_to_all_captions(local: np.ndarray, images: int, group: ProcessGroup) -> np.ndarray:
    """Gradients for this rank's captions (B, 1+n, ...), padded with zeros to all captions (B, 1+N, ...)."""
    length = shard_length(images, group.size)
    places = np.arange(images)[group.index * length : (group.index + 1) * length]
    whole = np.zeros((local.shape[0], 1 + images, *local.shape[2:]), local.dtype)
    whole[:, 0] = local[:, 0]
    whole[:, 1 + places] = local[:, 1 : 1 + len(places)]
    return whole


def gather_frames(x: np.ndarray, axis: int, frames: int, group: ProcessGroup) -> np.ndarray:
    """The frames of all ranks, `frames` without padding: the inverse of `local_shard` for a video."""
    return np.moveaxis(all_gather_array(np.moveaxis(x, axis, 0), group)[:frames], 0, axis)


def all_gather_array(x: np.ndarray, group: ProcessGroup) -> np.ndarray:
    """The arrays of all ranks, concatenated along the first axis."""
    if group.size == 1:
        return x
    return np.asarray(group.all_gather(ms.Tensor(np.ascontiguousarray(x))).asnumpy())


class ShardedWorkSharing(WorkSharing):
    """Ranks of a group compute items in turn, and every rank gets all results.

    All ranks must call `map` with the same function and items.
    """

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group

    def map(
        self, function: Callable[[T], tuple[np.ndarray, ...]], items: Iterable[T]
    ) -> Iterator[tuple[T, tuple[np.ndarray, ...]]]:
        waiting, size = list(items), self._group.size
        for first in range(0, len(waiting), size):
            turn = waiting[first : first + size]
            # If the last turn has fewer items than ranks, the ranks without one compute the last item again.
            local = function(turn[min(self._group.index, len(turn) - 1)])
            results = [np.split(all_gather_array(array, self._group), size) for array in local]
            for i, item in enumerate(turn):
                yield item, tuple(parts[i] for parts in results)


class ShardedFrameExchange(FrameExchange):
    """The frames of a video are split over the ranks of a group."""

    def __init__(self, group: ProcessGroup, frames: int) -> None:
        """frames: the number of frames of the whole video, without padding."""
        self.group, self.frames = group, frames
        self.local_frames = shard_length(frames, group.size)

    def total_frames(self, frames: int) -> int:
        assert frames == self.local_frames
        return self.frames

    def local_rows(self, table: Tensor) -> Tensor:
        start = self.group.index * self.local_frames
        return _pad(table, 0, self.group.size * self.local_frames)[start : start + self.local_frames]

    def wrap_temporal(self, block: Differentiable) -> Differentiable:
        return ShardedTemporalBlock(block, self)

    def to_time(self, x: Tensor) -> Tensor:
        """This rank's frames (B, t+N, S, D) -> all frames of its patches (B, T, s, D), without images."""
        batch, _, patches, width = x.shape
        n, t, s = self.group.size, self.local_frames, shard_length(patches, self.group.size)
        video = ops.reshape(_pad(x[:, :t], 2, n * s), (batch, t, n, s, width))
        parts = self.group.all_to_all(ops.transpose(video, (2, 0, 1, 3, 4)))  # (rank, B, t, s, D)
        return ops.reshape(ops.transpose(parts, (1, 0, 2, 3, 4)), (batch, n * t, s, width))[:, : self.frames]

    def to_space(self, video: Tensor, patches: int) -> Tensor:
        """The inverse and transpose of `to_time`, (B, T, s, D) -> (B, t, S, D).

        Padded frames are zero.
        """
        batch, _, s, width = video.shape
        n, t = self.group.size, self.local_frames
        parts = ops.reshape(_pad(video, 1, n * t), (batch, n, t, s, width))
        parts = self.group.all_to_all(ops.transpose(parts, (1, 0, 2, 3, 4)))  # (rank, B, t, s, D)
        return ops.reshape(ops.transpose(parts, (1, 2, 0, 3, 4)), (batch, t, n * s, width))[:, :, :patches]


class ShardedTemporalBlock:
    """A temporal block between two exchanges.

    A backward pass that recomputes the block exchanges its input again.
    """

    def __init__(self, block: Differentiable, exchange: ShardedFrameExchange) -> None:
        self._block, self._exchange = block, exchange

    def __call__(self, weights: Weights, *inputs: Tree) -> Tensor:
        x, *rest = inputs
        return self._to_space(self._block(weights, self._exchange.to_time(x), *rest), x)

    def gradient(self, weights: Weights, inputs: tuple[Tree, ...], output_gradient: Tensor) -> Gradients:
        x, *rest = inputs
        video, video_gradient = self._exchange.to_time(x), self._exchange.to_time(output_gradient)
        by_weight, (by_video, *by_rest) = self._block.gradient(weights, (video, *rest), video_gradient)
        return by_weight, [self._to_space(by_video, output_gradient), *by_rest]

    def with_saved_activations(self, weights: Weights, *inputs: Tree) -> tuple[Tensor, Pullback]:
        x, *rest = inputs
        video, pull = self._block.with_saved_activations(weights, self._exchange.to_time(x), *rest)

        def pullback(output_gradient: Tensor) -> Gradients:
            by_weight, (by_video, *by_rest) = pull(self._exchange.to_time(output_gradient))
            return by_weight, [self._to_space(by_video, output_gradient), *by_rest]

        return self._to_space(video, x), pullback

    def _to_space(self, video: Tensor, x: Tensor) -> Tensor:
        """The frames of this rank (B, t, S, D) from its patches of the video, followed by the images of x."""
        frames = self._exchange.local_frames
        local = self._exchange.to_space(video, x.shape[2])
        return ops.concat((local, x[:, frames:]), 1) if x.shape[1] > frames else local


def _pad(x: Tensor, axis: int, length: int) -> Tensor:
    """x with zeros behind it along an axis, up to `length`."""
    missing = length - x.shape[axis]
    if not missing:
        return x
    shape = (*x.shape[:axis], missing, *x.shape[axis + 1 :])
    return ops.concat((x, ops.zeros(shape, x.dtype)), axis)
