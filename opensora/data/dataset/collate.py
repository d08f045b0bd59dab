"""Put samples of different sizes together into a batch, with a mask of the latents that hold pixels."""

from collections.abc import Sequence
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from opensora.models.causal_vae.config import CausalVAEConfig
from opensora.models.geometry import Size, Strides

PUBLISHED = CausalVAEConfig().strides
PATCH = Strides(1, 2)
TEXTS = ("text_embeds", "labels", "input_ids")
"""The forms of a sample's text, of which it has one."""


class PixelBatch(NamedTuple):
    """A batch under the reference's names. t, h, w are latent sizes.

    N images follow each video on the time axis. A batch of images has no video: T = t = 0.
    """

    pixels: np.ndarray  # (B, C, T+N, H, W) float32
    attention_mask: np.ndarray  # (B, t+N, h, w) float32, 1 where the latent holds any pixel of the sample
    input_ids: np.ndarray  # (B, 1+N, L), or (B, N, L) without videos
    cond_mask: np.ndarray  # as input_ids, 1 = keep


def collate(
    samples: Sequence[dict[str, Any]],
    max_image_size: int,
    ae_stride: int = PUBLISHED.space,
    ae_stride_t: int = PUBLISHED.time,
    patch_size: int = PATCH.space,
    patch_size_t: int = PATCH.time,
    num_frames: int = 17,
    use_image_num: int = 0,
) -> PixelBatch:
    """Pad samples to the largest permitted size, so that shapes never change, and stack them.

    Padding is at the bottom, the right and the end. Keys and fields have the reference's names. A sample
    holds, if num_frames > 1,
        "video_data" {"video": (C, T, H, W), "input_ids": (1, L), "cond_mask": (1, L)}
    and, if num_frames is 1 or use_image_num is N > 0,
        "image_data" {"image": N arrays (C, 1, H, W), "input_ids": (N, L), "cond_mask": (N, L)}.
    Raises ValueError for a sample that is larger.
    """
    strides = Strides(ae_stride_t, ae_stride)
    sizes = batch_sizes(max_image_size, num_frames, strides, Strides(patch_size_t, patch_size))
    renamed: list[dict[str, Any]] = [
        {
            kind: {**sample[kind], "text_mask": sample[kind]["cond_mask"]}
            for kind in ("video_data", "image_data")
            if kind in sample
        }
        for sample in samples
    ]
    batch = join(renamed, sizes, num_frames > 1, num_frames == 1 or use_image_num > 0, strides)
    return PixelBatch(batch["pixels"], batch["latent_mask"], batch["input_ids"], batch["text_mask"])


def batch_sizes(max_image_size: int, num_frames: int, strides: Strides, patch: Strides = PATCH) -> Size:
    """Frames, height and width of a batch in pixels. strides: the autoencoder's; patch: the transformer's."""
    side = _round_up(max_image_size, strides.space * patch.space)
    return 1 + _round_up(num_frames - 1, strides.time * patch.time), side, side


def join(
    samples: Sequence[dict[str, Any]], sizes: Size, videos: bool, images: bool, strides: Strides
) -> dict[str, np.ndarray]:
    """`collate` for every form of sample, with "text_mask" and "latent_mask" as names of the masks.

    A sample may have "latents" (C, t, h, w) for its pixels, and "text_embeds" (N, L, D) or the "labels" of
    classes (N, 1) for its input_ids. The batch then has these keys for "pixels" and "input_ids".
    """
    parts = []
    if videos:
        parts.append(_join_part([sample["video_data"] for sample in samples], "video", sizes, strides))
    if images:
        pictures = [sample["image_data"] for sample in samples]
        parts.append(_join_part(pictures, "image", (1, *sizes[1:]), strides))
    time_axis = {"pixels": 2, "latents": 2}
    return {name: np.concatenate([part[name] for part in parts], time_axis.get(name, 1)) for name in parts[0]}


def _join_part(data: list[dict[str, Any]], kind: str, sizes: Size, strides: Strides) -> dict[str, np.ndarray]:
    name = "latents" if "latents" in data[0] else "pixels"
    text = next(key for key in TEXTS if key in data[0])
    # In a batch of latents the mask has an element for each of them.
    target, per_latent = sizes, strides
    if name == "latents":
        target, per_latent = strides.latent_size(sizes), Strides(1, 1)
    arrays, masks = [], []
    for item in data:
        visual = item["latents" if name == "latents" else kind]
        padded = [pad(array, target, per_latent) for array in ([visual] if kind == "video" else visual)]
        arrays.append(np.concatenate([array for array, _ in padded], 1))  # (C, T or N, H, W)
        masks.append(np.concatenate([mask for _, mask in padded]))
    return {
        name: np.stack(arrays),
        "latent_mask": np.stack(masks),
        text: np.stack([item[text] for item in data]),
        "text_mask": np.stack([item["text_mask"] for item in data]),
    }


def pad(array: np.ndarray, target: Size, strides: Strides) -> tuple[np.ndarray, np.ndarray]:
    """(C, T, H, W) -> (C, *target), and the mask of the latents that it fills completely or in part."""
    size = array.shape[1:]
    if any(have > allowed for have, allowed in zip(size, target, strict=True)):
        raise ValueError(
            f"a sample of {_by(size)} is larger than the batch's {_by(target)} (frames x height x width): "
            "resize it first"
        )
    margins = [(0, allowed - have) for have, allowed in zip(size, target, strict=True)]
    mask = np.zeros(strides.latent_size(target), np.float32)
    frames, height, width = strides.latent_size(size)
    mask[:frames, :height, :width] = 1
    return np.pad(array, ((0, 0), *margins)), mask


def _round_up(number: int, multiple: int) -> int:
    return ceil(number / multiple) * multiple


def _by(size: Sequence[int]) -> str:
    return "x".join(str(number) for number in size)
