"""Samples put together into batches."""

from collections.abc import Sequence
from math import ceil
from typing import Any, NamedTuple

import numpy as np


class Batch(NamedTuple):
    """N images follow each video on the time axis; t, h, w are latent sizes. A batch of images has no video: T = t = 0."""

    pixels: np.ndarray  # (B, C, T+N, H, W) float32
    attention_mask: np.ndarray  # (B, t+N, h, w) float32, 1 where the latent holds any pixel of the sample
    input_ids: np.ndarray  # (B, 1+N, L), or (B, N, L) without videos
    cond_mask: np.ndarray  # as input_ids, 1 = keep


def collate(
    samples: Sequence[dict[str, Any]],
    max_image_size: int,
    ae_stride: int = 8,
    ae_stride_t: int = 4,
    patch_size: int = 2,
    patch_size_t: int = 1,
    num_frames: int = 17,
    use_image_num: int = 0,
) -> Batch:
    """Samples of different sizes, padded with 0 at the bottom, the right and the end, and told apart by a latent mask.

    A sample holds "video_data" {"video": (C, T, H, W), "input_ids": (1, L), "cond_mask": (1, L)} if num_frames > 1, and
    "image_data" {"image": N arrays (C, 1, H, W), "input_ids": (N, L), "cond_mask": (N, L)} if num_frames is 1 or
    use_image_num is N > 0. The batch has the size of the largest permitted sample, so that shapes never change.
    Raises ValueError for a sample that is larger.
    """
    side = _multiple(max_image_size, ae_stride * patch_size)
    parts: list[Batch] = []
    if num_frames > 1:
        frames = 1 + _multiple(num_frames - 1, ae_stride_t * patch_size_t)
        data = [sample["video_data"] for sample in samples]
        padded = [_pad(item["video"], (frames, side, side), ae_stride_t, ae_stride) for item in data]
        parts.append(_batch(data, padded))
    if num_frames == 1 or use_image_num:
        data = [sample["image_data"] for sample in samples]
        padded = []
        for item in data:
            images = [_pad(image, (1, side, side), ae_stride_t, ae_stride) for image in item["image"]]
            padded.append((np.concatenate([pixels for pixels, _ in images], 1), np.concatenate([mask for _, mask in images])))
        parts.append(_batch(data, padded))
    return Batch(*(np.concatenate(arrays, axis) for arrays, axis in zip(zip(*parts, strict=True), (2, 1, 1, 1), strict=True)))


def _batch(data: list[dict[str, Any]], padded: list[tuple[np.ndarray, np.ndarray]]) -> Batch:
    return Batch(
        np.stack([pixels for pixels, _ in padded]),
        np.stack([mask for _, mask in padded]),
        np.stack([item["input_ids"] for item in data]),
        np.stack([item["cond_mask"] for item in data]),
    )


def _pad(pixels: np.ndarray, target: tuple[int, int, int], stride_t: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """(C, T, H, W) -> (C, *target) and the mask of the latents that it fills, wholly or in part."""
    size = pixels.shape[1:]
    if any(have > allowed for have, allowed in zip(size, target, strict=True)):
        raise ValueError(f"a sample of {_by(size)} is larger than the batch's {_by(target)} (frames x height x width): resize it first")
    full = np.pad(pixels, ((0, 0), *((0, allowed - have) for have, allowed in zip(size, target, strict=True))))
    mask = np.zeros(_latent_size(target, stride_t, stride), np.float32)
    frames, height, width = _latent_size(size, stride_t, stride)
    mask[:frames, :height, :width] = 1
    return full, mask


def _latent_size(size: tuple[int, ...], stride_t: int, stride: int) -> tuple[int, int, int]:
    """The first frame is a latent of its own, then every `stride_t` frames are one."""
    return 1 + ceil((size[0] - 1) / stride_t), ceil(size[1] / stride), ceil(size[2] / stride)


def _multiple(number: int, of: int) -> int:
    return ceil(number / of) * of


def _by(size: tuple[int, ...]) -> str:
    return "x".join(str(number) for number in size)
