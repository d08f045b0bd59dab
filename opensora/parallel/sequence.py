"""Sequence parallelism on time: each rank of a group holds some frames of the same samples and some of their images.

All blocks but the temporal ones work on frames by themselves. A temporal block works on patches by themselves, so the group exchanges
patches for frames before it and back after it (arXiv:2403.10266): every rank then has all frames of some patches. Counts that do not
divide are padded with zeros, which nothing reads: padded frames are cut off before a temporal block, and the loss leaves them out.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from opensora import runtime
from opensora.engine.block import Block, Pullback, Weights
from opensora.nn.exchange import Alone, Turns
from opensora.parallel.collectives import Group

ops = runtime.mindspore().ops
T = TypeVar("T")


def share_of(count: int, size: int) -> int:
    """Items on each of `size` ranks, padding included."""
    return -(-count // size)


def own_part(x: np.ndarray, axis: int, group: Group) -> np.ndarray:
    """This rank's part of an array along `axis`, padded with zeros to the same length on every rank."""
    length = share_of(x.shape[axis], group.size)
    chosen = np.take(x, range(group.index * length, min((group.index + 1) * length, x.shape[axis])), axis)
    missing = [(0, length - chosen.shape[axis] if i == axis else 0) for i in range(x.ndim)]
    return np.pad(chosen, missing) if any(after for _, after in missing) else chosen


def own_frames(x: np.ndarray, axis: int, frames: int, group: Group) -> np.ndarray:
    """This rank's part of a video of `frames` frames and, behind it, its part of the images that follow them."""
    video, images = np.split(x, [frames], axis)
    parts = [own_part(video, axis, group)]
    if images.shape[axis]:
        parts.append(own_part(images, axis, group))
    return np.concatenate(parts, axis)


def own_batch(batch: Mapping[str, Any], group: Group) -> dict[str, Any]:
    """This rank's part of a training batch (`train.t2v.Batch`, arrays of the host) that is the same on all ranks of the group.

    `share` (B,) is added: the part of a sample's elements in the loss that are here, so that the ranks' losses sum up to the sample's.
    """
    count = batch.get("num_images", 0)
    frames = batch["latents"].shape[2] - count
    own = {**batch, "num_images": share_of(count, group.size)}
    for name in ("latents", "noise"):
        own[name] = own_frames(batch[name], 2, frames, group)
    mask = batch.get("latent_mask")
    if mask is None:
        mask = np.ones(np.delete(batch["latents"].shape, 1), np.float32)
    own["latent_mask"] = own_frames(mask, 1, frames, group)  # zeros for padding
    axes = (1, 2, 3)
    own["share"] = (own["latent_mask"].sum(axes) / np.maximum(mask.sum(axes), 1)).astype(np.float32)
    for name in ("text_embeds", "text_mask"):
        if count and batch.get(name) is not None:
            video, images = np.split(batch[name], [1], 1)
            own[name] = np.concatenate((video, own_part(images, 1, group)), 1)
    return own


def own_places(frames: int, images: int, group: Group) -> np.ndarray:
    """Which of this rank's frames and images are no padding, bool (t+n,)."""
    return own_frames(np.ones(frames + images, bool), 0, frames, group)


def all_captions(own: np.ndarray, images: int, group: Group) -> np.ndarray:
    """Gradients by this rank's captions (B, 1+n, ...) among zeros for those of all images: (B, 1+N, ...)."""
    length = share_of(images, group.size)
    places = np.arange(images)[group.index * length : (group.index + 1) * length]
    whole = np.zeros((own.shape[0], 1 + images, *own.shape[2:]), own.dtype)
    whole[:, 0] = own[:, 0]
    whole[:, 1 + places] = own[:, 1 : 1 + len(places)]
    return whole


def all_frames(x: np.ndarray, axis: int, frames: int, group: Group) -> np.ndarray:
    """The inverse of `own_part` for a video: every rank's frames, without the padding."""
    if group.size == 1:
        return x
    tensor = runtime.mindspore().Tensor(np.ascontiguousarray(np.moveaxis(x, axis, 0)))
    return np.moveaxis(group.all_gather(tensor).asnumpy()[:frames], 0, axis)


class SharedTurns(Turns):
    """The ranks of a group take turns, and every one gets all results. Items and function are the same on all ranks."""

    def __init__(self, group: Group) -> None:
        self._group = group

    def compute(
        self, function: Callable[[T], tuple[np.ndarray, ...]], items: Iterable[T]
    ) -> Iterator[tuple[T, tuple[np.ndarray, ...]]]:
        waiting, size = list(items), self._group.size
        for first in range(0, len(waiting), size):
            turn = waiting[first : first + size]
            # Where the last turn has fewer items than the group has ranks, some compute the last item again.
            own = function(turn[min(self._group.index, len(turn) - 1)])
            results = [np.split(self._gather(array), size) for array in own]
            for i, item in enumerate(turn):
                yield item, tuple(parts[i] for parts in results)

    def _gather(self, array: np.ndarray) -> np.ndarray:
        return np.asarray(
            self._group.all_gather(runtime.mindspore().Tensor(np.ascontiguousarray(array))).asnumpy()
        )


class FrameExchange(Alone):
    """What a model asks for when the ranks of a group share the frames of a video."""

    def __init__(self, group: Group, frames: int) -> None:
        """frames: those of the whole video, without padding."""
        self.group, self.frames = group, frames
        self.own_frames = share_of(frames, group.size)

    def total(self, frames: int) -> int:
        assert frames == self.own_frames
        return self.frames

    def own(self, table: Any) -> Any:
        """This rank's rows of a table (T, ...), zeros for padded frames."""
        start = self.group.index * self.own_frames
        return _pad(table, 0, self.group.size * self.own_frames)[start : start + self.own_frames]

    def over_time(self, block: Block) -> Block:
        return _OverTime(block, self)

    def to_time(self, x: Any) -> Any:
        """Tokens (B, t+N, S, D) of this rank's frames -> (B, T, s, D): all frames of this rank's patches, without images."""
        batch, _, patches, width = x.shape
        n, t, s = self.group.size, self.own_frames, share_of(patches, self.group.size)
        video = _pad(x[:, :t], 2, n * s)
        parts = ops.transpose(
            ops.reshape(video, (batch, t, n, s, width)), (2, 0, 1, 3, 4)
        )  # (to, B, t, s, D)
        parts = self.group.all_to_all(parts)  # (from, B, t, s, D)
        return ops.reshape(ops.transpose(parts, (1, 0, 2, 3, 4)), (batch, n * t, s, width))[:, : self.frames]

    def to_space(self, video: Any, patches: int) -> Any:
        """(B, T, s, D) -> (B, t, S, D), the inverse and the transpose of `to_time` on frames that are no padding."""
        batch, _, s, width = video.shape
        n, t = self.group.size, self.own_frames
        parts = ops.transpose(
            ops.reshape(_pad(video, 1, n * t), (batch, n, t, s, width)), (1, 0, 2, 3, 4)
        )  # (to, B, t, s, D)
        parts = self.group.all_to_all(parts)  # (from, B, t, s, D)
        return ops.reshape(ops.transpose(parts, (1, 2, 0, 3, 4)), (batch, t, n * s, width))[:, :, :patches]


class _OverTime(Block):
    """A temporal block between two exchanges. If only its input is kept for the backward pass, that exchanges it again."""

    def __init__(self, block: Block, exchange: FrameExchange) -> None:
        self._block, self._exchange = block, exchange

    def __call__(self, weights: Weights, *inputs: Any) -> Any:
        x, *rest = inputs
        video = self._block(weights, self._exchange.to_time(x), *rest)
        return self._with_images(self._exchange.to_space(video, x.shape[2]), x)

    def gradient(
        self, weights: Weights, inputs: tuple[Any, ...], output_gradient: Any
    ) -> tuple[dict[str, Any], list[Any]]:
        x, *rest = inputs
        outward = self._exchange.to_time(output_gradient)
        by_weight, (by_video, *by_rest) = self._block.gradient(
            weights, (self._exchange.to_time(x), *rest), outward
        )
        by_x = self._with_images(self._exchange.to_space(by_video, x.shape[2]), output_gradient)
        return by_weight, [by_x, *by_rest]

    def keeping(self, weights: Weights, *inputs: Any) -> tuple[Any, Pullback]:
        x, *rest = inputs
        patches = x.shape[2]
        video, pull = self._block.keeping(weights, self._exchange.to_time(x), *rest)

        def pullback(output_gradient: Any) -> tuple[dict[str, Any], list[Any]]:
            by_weight, (by_video, *by_rest) = pull(self._exchange.to_time(output_gradient))
            return by_weight, [
                self._with_images(self._exchange.to_space(by_video, patches), output_gradient),
                *by_rest,
            ]

        return self._with_images(self._exchange.to_space(video, patches), x), pullback

    def _with_images(self, video: Any, x: Any) -> Any:
        frames = self._exchange.own_frames
        return ops.concat((video, x[:, frames:]), 1) if x.shape[1] > frames else video


def _pad(x: Any, axis: int, length: int) -> Any:
    """Zeros behind `x` along an axis, up to a length."""
    missing = length - x.shape[axis]
    if not missing:
        return x
    shape = (*x.shape[:axis], missing, *x.shape[axis + 1 :])
    return ops.concat((x, ops.zeros(shape, x.dtype)), axis)
