"""`opensora encode-latents`: precompute the autoencoder's latents of a data set's clips."""

import logging
import os
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from opensora.data.caches.cache import CacheWriter, Fingerprint, Item, encoder_digest, read_items
from opensora.data.clips import evenly_spaced_frames
from opensora.data.dataset import Dataset, DemoDataset, FileDataset
from opensora.data.dataset.collate import batch_sizes, pad
from opensora.data.options import ClipOptions, EncodeLatentsOptions
from opensora.data.read_ahead import read_ahead
from opensora.data.setup import (
    clip_options,
    clips_digest,
    cut_settings,
    open_list,
    picture_options,
)
from opensora.demo_data.render import DemoClips, Renderer
from opensora.models.causal_vae.model import CausalVAE
from opensora.models.causal_vae.tiling import Tiling
from opensora.runtime import mindspore
from opensora.weights.folder import find_autoencoder

ms = mindspore()
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClipsToEncode:
    """`copies` clips of every item of a data set. `settings` identify them in the fingerprint."""

    dataset: Dataset
    clip: ClipOptions
    seed: int
    copies: int
    settings: dict[str, Any]

    def __len__(self) -> int:
        return len(self.dataset) * self.copies

    def pixels(self, number: int) -> np.ndarray:
        """float32 (3, T, H, W) in [-1, 1]."""
        return self.dataset.visual(number // self.copies, np.random.default_rng([self.seed, number]))

    def describe(self, number: int) -> dict[str, Any]:
        index = number // self.copies
        captions, source = self.dataset.captions(index)
        path = self.dataset.name(index)
        return {"path": path, **_file_facts(path), "captions": captions, "source": source}


def encode_latents(options: EncodeLatentsOptions) -> None:
    """Write the cache, or its missing blocks and those whose files or captions changed.

    Raises ValueError for lists that cannot be read and for another cache.
    """
    options = replace(options, vae=str(find_autoencoder(options.vae)))
    clips = _listed_clips(options) if options.demo_data is None else _demo_clips(options)
    settings = {
        "clip": cut_settings(clips.clip),
        "enable_tiling": options.enable_tiling,
        "dtype": options.dtype,
        **clips.settings,
    }
    fingerprint = Fingerprint(
        "latents", encoder_digest(options.vae), settings, "", len(clips), options.block_size
    )
    writer = CacheWriter(options.output_path, fingerprint, options.dtype, options.rank, options.world_size)
    vae: CausalVAE | None = None
    for block in filter(writer.owns, range(fingerprint.blocks)):
        numbers = range(block * options.block_size, min((block + 1) * options.block_size, len(clips)))
        if not writer.wants(block) and _is_current(writer, block, clips, numbers):
            continue
        if vae is None:
            vae = CausalVAE.from_pretrained(options.vae)
            vae.tiling = Tiling() if options.enable_tiling else None
        writer.write(block, *_encode_block(clips, numbers, vae, min(options.batch_size, len(clips))))
        log.info("encoded %d of %d clips", numbers.stop, len(clips))


def _listed_clips(options: EncodeLatentsOptions) -> ClipsToEncode:
    data_list = options.video_data or options.image_data
    assert data_list is not None
    clip = clip_options(options)
    if options.video_data is None:
        clip = picture_options(clip)
    entries = open_list(data_list, options, only_existing=False)
    copies, seed = options.clips_per_video, options.seed
    settings = {"clips": clips_digest(entries), "clips_per_video": copies, "seed": seed}
    return ClipsToEncode(FileDataset(entries, clip), clip, seed, copies, settings)


def _demo_clips(options: EncodeLatentsOptions) -> ClipsToEncode:
    assert options.demo_data is not None
    clip = ClipOptions(num_frames=options.num_frames, max_image_size=options.resolution)
    renderer, seed = Renderer(options.demo_data), options.seed
    clips = DemoClips(renderer, seed, options.split, options.num_frames, options.resolution)
    settings = {"demo": True, "split": options.split, "seed": seed}
    dataset = DemoDataset(clips, options.num_clips, options.demo_captions)
    return ClipsToEncode(dataset, clip, seed, 1, settings)


def _file_facts(path: str) -> dict[str, int]:
    """Size and time of change of a clip's file; nothing if there is none."""
    try:
        facts = os.stat(path)
    except (OSError, ValueError):
        return {}
    return {"size": facts.st_size, "time": facts.st_mtime_ns}


def _is_current(writer: CacheWriter, block: int, clips: ClipsToEncode, numbers: range) -> bool:
    """True if a complete block's files are still those that it was made of. Updates its captions."""
    items = read_items(writer.folder, block)
    facts = [clips.describe(number) for number in numbers]
    if len(items) != len(facts) or any(map(_is_other_file, items, facts)):
        log.info("block %d is encoded again, because its files have changed", block)
        return False
    if any(item.captions != tuple(fact["captions"]) for item, fact in zip(items, facts, strict=True)):
        described = [
            {**asdict(item), "captions": fact["captions"], "source": fact["source"]}
            for item, fact in zip(items, facts, strict=True)
        ]
        writer.describe(block, described)
        log.info("the captions of %d clips are up to date, their latents stay", numbers.stop)
    return True


def _is_other_file(item: Item, facts: dict[str, Any]) -> bool:
    """True if an item was made of another file, as far as its cache and the file tell."""
    if item.size is None or "size" not in facts:
        return item.path != facts["path"]
    return (item.path, item.size, item.time) != (facts["path"], facts["size"], facts["time"])


def _encode_block(
    clips: ClipsToEncode, numbers: range, vae: CausalVAE, batch_size: int
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """The items of a block, and by key the moments of those that can be read, (2*C, t+N, h, w).

    With use_img_from_vid, N = use_image_num pictures cut from a video follow it on the time axis.
    """
    items: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    batch: dict[str, np.ndarray] = {}

    def encode_batch() -> None:
        arrays.update(zip(batch, _encode(clips.clip, list(batch.values()), vae, batch_size), strict=True))
        batch.clear()

    for number, read in read_ahead(clips.pixels, numbers, batch_size):
        item = {"key": str(number), **clips.describe(number)}
        try:
            batch[item["key"]] = read()
        except ValueError as error:
            item["rejected"] = str(error)
            log.info("left out %s: %s", item["path"], error)
        items.append(item)
        if len(batch) == batch_size:
            encode_batch()
    if batch:
        encode_batch()
    return items, arrays


def _encode(clip: ClipOptions, videos: list[np.ndarray], vae: CausalVAE, batch_size: int) -> list[np.ndarray]:
    """Moments of each video, with those of the pictures cut from it behind: (2*C, t+N, h, w)."""
    moments = _moments(vae, videos, clip, batch_size)
    if not clip.use_img_from_vid:
        return moments
    count = clip.use_image_num
    pictures = [picture for video in videos for picture in evenly_spaced_frames(video, count)]
    extra = _moments(vae, pictures, picture_options(clip), batch_size)
    return [
        np.concatenate([video, *extra[number * count : (number + 1) * count]], 1)
        for number, video in enumerate(moments)
    ]


def _moments(
    vae: CausalVAE, videos: list[np.ndarray], clip: ClipOptions, batch_size: int
) -> list[np.ndarray]:
    """Moments of each video, padded and encoded in batches as in training, cropped to its own latents.

    The last batch is filled up with copies, because each batch size is compiled.
    """
    strides = vae.config.strides
    sizes = batch_sizes(clip.max_image_size, clip.num_frames, strides)
    results: list[np.ndarray] = []
    for first in range(0, len(videos), batch_size):
        part = videos[first : first + batch_size]
        padded = [pad(video, sizes, strides)[0] for video in part]
        padded += [padded[-1]] * (batch_size - len(padded))
        moments = vae.encode(ms.Tensor(np.stack(padded))).moments.asnumpy()  # (B, 2*C, t, h, w)
        for row, video in zip(moments, part, strict=False):
            frames, height, width = strides.latent_size(video.shape[1:])
            results.append(row[:, :frames, :height, :width])
    return results
