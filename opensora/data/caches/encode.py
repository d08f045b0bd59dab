"""`opensora encode-latents`: what the autoencoder makes of the clips of a data set, computed once."""

import logging
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from opensora.data.caches.cache import CacheWriter, Fingerprint, encoder_digest
from opensora.data.clips import read_ahead
from opensora.data.cutting import pictures_of, read_clip
from opensora.data.dataset.collate import batch_sizes, pad
from opensora.data.options import ClipOptions, EncodeLatentsOptions
from opensora.data.setup import (
    captions_digest,
    clip_options,
    clips_digest,
    cut_settings,
    open_list,
    picture_options,
)
from opensora.demo_data.render import DemoClips, Renderer
from opensora.media.pixels import to_pixels
from opensora.models.causal_vae.model import CausalVAE
from opensora.models.causal_vae.tiling import Tiling
from opensora.runtime import mindspore

ms = mindspore()
log = logging.getLogger(__name__)


class Clips(Protocol):
    """What is encoded: `clip` says how clips were cut, `settings` what else their content depends on."""

    clip: ClipOptions
    settings: dict[str, Any]
    captions: str

    def __len__(self) -> int: ...

    def describe(self, index: int) -> dict[str, Any]:
        """{"path", "captions", "source"}."""

    def pixels(self, index: int) -> np.ndarray:
        """float32 (3, T, H, W) in [-1, 1]."""


class ListClips:
    """`clips_per_video` clips of each record of a data list."""

    def __init__(self, options: EncodeLatentsOptions) -> None:
        data_list = options.video_data or options.image_data
        assert data_list is not None
        self.clip = (
            clip_options(options)
            if options.video_data is not None
            else picture_options(clip_options(options))
        )
        self._entries = open_list(data_list, options, only_existing=False)
        self._copies, self._seed = options.clips_per_video, options.seed
        self.settings = {
            "clips": clips_digest(self._entries),
            "clips_per_video": self._copies,
            "seed": self._seed,
        }
        self.captions = captions_digest(self._entries)

    def __len__(self) -> int:
        return len(self._entries) * self._copies

    def describe(self, index: int) -> dict[str, Any]:
        entry = self._entries[index // self._copies]
        return {"path": str(entry.path), "captions": entry.captions, "source": entry.source}

    def pixels(self, index: int) -> np.ndarray:
        rng = np.random.default_rng([self._seed, index])
        return read_clip(self._entries[index // self._copies], self.clip.num_frames, self.clip, rng)


class RenderedClips:
    """Clips of the demo data set."""

    def __init__(self, options: EncodeLatentsOptions) -> None:
        assert options.demo_data is not None
        self.clip = ClipOptions(num_frames=options.num_frames, max_image_size=options.resolution)
        self._clips = DemoClips(
            Renderer(options.demo_data), options.seed, options.split, options.num_frames, options.resolution
        )
        self._count = options.num_clips
        self.settings = {"demo": True, "split": options.split, "seed": options.seed}
        self.captions = "the demo's"

    def __len__(self) -> int:
        return self._count

    def describe(self, index: int) -> dict[str, Any]:
        clip = self._clips[index]
        return {"path": f"demo clip {index}", "captions": [clip.caption], "source": 0}

    def pixels(self, index: int) -> np.ndarray:
        return to_pixels(self._clips[index].video[None])[0]


def encode_latents(options: EncodeLatentsOptions) -> None:
    """Write the cache that `options` ask for, or what is missing of it. Raises ValueError."""
    clips: Clips = ListClips(options) if options.demo_data is None else RenderedClips(options)
    settings = {
        "clip": cut_settings(clips.clip),
        "enable_tiling": options.enable_tiling,
        "dtype": options.dtype,
        **clips.settings,
    }
    fingerprint = Fingerprint(
        "latents", encoder_digest(options.vae), settings, clips.captions, len(clips), options.block_size
    )
    writer = CacheWriter(options.output_path, fingerprint, options.dtype, options.rank, options.world_size)
    vae: CausalVAE | None = None
    for block in filter(writer.wants, range(fingerprint.blocks)):
        if vae is None:
            vae = CausalVAE.from_pretrained(options.vae)
            vae.tiling = Tiling() if options.enable_tiling else None
        indices = range(block * options.block_size, min((block + 1) * options.block_size, len(clips)))
        writer.write(block, *_encode_block(clips, indices, vae, min(options.batch_size, len(clips))))
        log.info("encoded %d of %d clips", indices.stop, len(clips))


def _encode_block(
    clips: Clips, indices: range, vae: CausalVAE, batch_size: int
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """The items of a block and the moments of those that could be read, (2*C, t+N, h, w): pictures cut from a video follow it."""
    items: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    batch: dict[str, np.ndarray] = {}

    def encode() -> None:
        whole = _moments(vae, list(batch.values()), clips.clip, batch_size)
        if clips.clip.use_img_from_vid:
            count = clips.clip.use_image_num
            pictures = [picture for video in batch.values() for picture in pictures_of(video, count)]
            extra = _moments(vae, pictures, picture_options(clips.clip), batch_size)
            whole = [
                np.concatenate([video, *extra[i * count : (i + 1) * count]], 1)
                for i, video in enumerate(whole)
            ]
        arrays.update(zip(batch, whole, strict=True))
        batch.clear()

    for index, read in read_ahead(clips.pixels, indices, batch_size):
        key, video = str(index), _pixels_or_reason(read)
        items.append(
            {"key": key, **clips.describe(index)} | ({"rejected": video} if isinstance(video, str) else {})
        )
        if isinstance(video, str):
            log.info("left out %s: %s", items[-1]["path"], video)
        else:
            batch[key] = video
        if len(batch) == batch_size:
            encode()
    if batch:
        encode()
    return items, arrays


def _moments(
    vae: CausalVAE, videos: list[np.ndarray], clip: ClipOptions, batch_size: int
) -> list[np.ndarray]:
    """Moments of each of some videos, encoded as a batch in training is, padded, and cut to what the video fills.

    Batches are always full, because each size is compiled.
    """
    strides = vae.config.strides
    sizes = batch_sizes(clip.max_image_size, clip.num_frames, strides)
    results: list[np.ndarray] = []
    for first in range(0, len(videos), batch_size):
        part = videos[first : first + batch_size]
        padded = [pad(video, sizes, strides)[0] for video in part]
        padded += [padded[-1]] * (batch_size - len(padded))
        moments = vae.encode(ms.Tensor(np.stack(padded))).moments.asnumpy()
        filled = [strides.latent_size(video.shape[1:]) for video in part]
        results += [
            moments[i, :, :frames, :height, :width] for i, (frames, height, width) in enumerate(filled)
        ]
    return results


def _pixels_or_reason(read: Callable[[], np.ndarray]) -> np.ndarray | str:
    try:
        return read()
    except Exception as error:  # whatever a decoder raises for a foreign file
        return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
