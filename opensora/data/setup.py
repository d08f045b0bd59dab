"""From data options to the source of a run: lists are indexed, caches are opened and checked."""

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from opensora.data.caches.cache import encoder_digest
from opensora.data.caches.latents import LatentCache
from opensora.data.dataset.collate import PUBLISHED
from opensora.data.lists.data_list import Entries, read_data_list
from opensora.data.options import ClipOptions, DataOptions, ListOptions
from opensora.data.samples import FileStock, LatentStock, Source, Stock
from opensora.data.text.captions import Text, TextEmbeddings, TokenIds
from opensora.models.geometry import Strides

LENGTH = 300
"""Tokens of a caption where no model says otherwise."""


def make_source(
    options: DataOptions,
    seed: int,
    text_encoder: str | Path | None = None,
    vae: str | Path | None = None,
    strides: Strides = PUBLISHED,
) -> Source:
    """The samples that the options ask for.

    text_encoder: its folder, for the tokenizer, and to tell whether cached text embeddings are its own; vae: the same for latents;
    None accepts any cache. strides: of the autoencoder. Raises ValueError for lists or caches that cannot be used, with the reason.
    """
    clip = clip_options(options)
    if options.video_data is None and options.vae_latent_folder is not None:
        # The cache is the data set, and knows how its clips were cut.
        cached = ClipOptions(**LatentCache(options.vae_latent_folder).fingerprint.settings["clip"])
        clip = cached if cached.use_img_from_vid else replace(cached, use_image_num=options.use_image_num)
    pictures = picture_options(clip)
    videos = images = None
    if clip.num_frames == 1 and options.image_data is None:
        images = _stock(options, options.video_data, options.vae_latent_folder, pictures, text_encoder, vae)
    elif clip.num_frames == 1 or (clip.use_image_num and not clip.use_img_from_vid):
        images = _stock(options, options.image_data, options.image_latent_folder, pictures, text_encoder, vae)
    if clip.num_frames > 1:
        videos = _stock(options, options.video_data, options.vae_latent_folder, clip, text_encoder, vae)
    if (
        videos is not None
        and images is not None
        and isinstance(videos, LatentStock) != isinstance(images, LatentStock)
    ):
        raise ValueError(
            "videos and pictures must both be cached or both be files: name both caches, vae_latent_folder and image_latent_folder"
        )
    return Source(videos, images, clip, options.caption_dropout, seed, options.max_rowsize, strides)


def _stock(
    options: DataOptions,
    data_list: str | None,
    cache: str | None,
    clip: ClipOptions,
    text_encoder: str | Path | None,
    vae: str | Path | None,
) -> Stock:
    if data_list is None and cache is None:
        kind = (
            "pictures: name them with --image_data"
            if clip.num_frames == 1
            else "videos: name them with --video_data"
        )
        raise ValueError(f"there are no {kind}, or train on cached latents")
    # A cache needs no video files any more.
    entries = (
        None
        if data_list is None
        else open_list(data_list, options, options.filter_nonexistent and cache is None)
    )
    text = _text(options, entries, text_encoder)
    if cache is None:
        assert entries is not None
        return FileStock(entries, text, clip.num_frames, clip)
    latents = LatentCache(cache)
    encoder = None if vae is None else encoder_digest(vae)
    if entries is None:
        latents.fingerprint.require(latents.folder, encoder)
    else:
        latents.fingerprint.require(
            latents.folder,
            encoder,
            {"clip": cut_settings(clip), "clips": clips_digest(entries)},
            captions_digest(entries),
        )
    return LatentStock(latents, text, options.sample_posterior)


def _text(options: DataOptions, entries: Entries | None, text_encoder: str | Path | None) -> Text:
    if options.text_embed_cache and entries is not None:
        encoder = None if text_encoder is None else encoder_digest(text_encoder)
        folders = [source.text_folder for source in entries.sources]
        return TextEmbeddings(
            folders,
            [digest.captions for digest in entries.digests],
            options.model_max_length or LENGTH,
            encoder,
        )
    if text_encoder is None:
        raise ValueError(
            "captions need the tokenizer of a text encoder: name its folder, or use cached embeddings with --text_embed_cache"
        )
    return TokenIds(text_encoder, options.model_max_length or LENGTH)


def clip_options(options: ClipOptions) -> ClipOptions:
    """The part of larger options that says how clips are cut."""
    return ClipOptions(**{item.name: getattr(options, item.name) for item in fields(ClipOptions)})


def picture_options(clip: ClipOptions) -> ClipOptions:
    """How pictures that go with such clips are cut."""
    return replace(clip, num_frames=1, sample_rate=1, use_image_num=0, use_img_from_vid=False)


def cut_settings(clip: ClipOptions) -> dict[str, Any]:
    """What the latents of a clip depend on: pictures of another list lie in a cache of their own."""
    return asdict(clip if clip.use_img_from_vid else replace(clip, use_image_num=0))


def open_list(path: str, options: ListOptions, only_existing: bool) -> Entries:
    """The records of a data list, at least one. Raises ValueError otherwise."""
    entries = Entries(read_data_list(path), only_existing, options.file_column, options.caption_column)
    if not entries:
        reasons = ", ".join(
            f"{reason} ({count}, first {entries.examples[reason]})"
            for reason, count in entries.rejected.items()
        )
        raise ValueError(f"data list {path} has no usable record: {reasons or 'its annotations are empty'}")
    return entries


def captions_digest(entries: Entries) -> str:
    """Of all captions of a list, data set by data set."""
    return " ".join(digest.captions[:16] for digest in entries.digests)


def clips_digest(entries: Entries) -> str:
    """Of all paths and frame ranges of a list, data set by data set."""
    return " ".join(digest.clips[:16] for digest in entries.digests)
