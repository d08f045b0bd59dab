"""Set up the samples of a run from its data options: index the lists, open and check the caches."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from opensora.data.caches.cache import REMEDY, encoder_digest
from opensora.data.caches.latents import LatentCache
from opensora.data.dataset import ArrayDataset, Dataset, FileDataset, LatentDataset
from opensora.data.dataset.arrays import Captioned
from opensora.data.dataset.collate import PUBLISHED
from opensora.data.lists.data_list import Entries, read_data_list
from opensora.data.options import DEFAULT_TEXT_LENGTH, ClipOptions, DataOptions, ListOptions, SampleOptions
from opensora.data.samples import SampleSource, Stream
from opensora.data.text.captions import CaptionFeatures, TextEmbeddings, TokenIds
from opensora.models.geometry import Strides


class Opened(NamedTuple):
    """A data set, and its list if it has one."""

    dataset: Dataset
    entries: Entries | None


MakeFeatures = Callable[[Sequence[Opened]], Sequence[CaptionFeatures]]
"""The form in which the captions of each of a run's data sets reach the model."""


def make_source(
    options: DataOptions,
    seed: int,
    text_encoder: str | Path | None = None,
    vae: str | Path | None = None,
    strides: Strides = PUBLISHED,
    items: Iterable[Captioned] | None = None,
) -> SampleSource:
    """Open the data that the options name, with captions as token ids or cached embeddings.

    text_encoder: its folder, for the tokenizer and to check cached text embeddings. None accepts any cache.
    items: frames and captions in place of files.
    The others are those of `open_source`. Raises ValueError for lists and caches that cannot be used.
    """

    if items is not None:
        dataset = ArrayDataset(items, clip_options(options))
        stream = Stream(dataset, _text(options, text_encoder, None))
        return SampleSource(
            stream if options.num_frames > 1 else None,
            None if options.num_frames > 1 else stream,
            dataset.clip,
            options.caption_dropout,
            seed,
            options.max_rowsize,
            strides,
        )

    def features(opened: Sequence[Opened]) -> Sequence[CaptionFeatures]:
        return [_text(options, text_encoder, entries) for _, entries in opened]

    return open_source(options, seed, features, options.caption_dropout, vae, strides)


def open_source(
    options: SampleOptions,
    seed: int,
    features: MakeFeatures,
    dropout: float,
    vae: str | Path | None = None,
    strides: Strides = PUBLISHED,
) -> SampleSource:
    """Open the data that the options name.

    dropout: fraction of captions that are left empty. vae: the autoencoder's folder, to check cached latents;
    None accepts any cache. strides: the autoencoder's. Raises ValueError for lists and caches that cannot be
    used.
    """
    options.require_data()
    clip = clip_options(options)
    if options.video_data is None and options.vae_latent_folder is not None:
        # The cache is the data set and knows how its clips were cut.
        cached = LatentCache(options.vae_latent_folder).clip
        clip = cached if cached.use_img_from_vid else replace(cached, use_image_num=options.use_image_num)
    opener = _Opener(options, vae)
    pictures = picture_options(clip)
    videos = images = None
    if clip.num_frames == 1 and options.image_data is None:
        images = opener.open(options.video_data, options.vae_latent_folder, pictures)
    elif clip.num_frames == 1 or (clip.use_image_num and not clip.use_img_from_vid):
        images = opener.open(options.image_data, options.image_latent_folder, pictures)
    if clip.num_frames > 1:
        videos = opener.open(options.video_data, options.vae_latent_folder, clip)
    if videos is not None and images is not None and videos.dataset.encoded != images.dataset.encoded:
        raise ValueError(
            "videos and pictures must both be cached or both be files: "
            "name both caches, vae_latent_folder and image_latent_folder"
        )
    forms = iter(features([opened for opened in (videos, images) if opened is not None]))
    moving, still = (
        None if opened is None else Stream(opened.dataset, next(forms)) for opened in (videos, images)
    )
    return SampleSource(moving, still, clip, dropout, seed, options.max_rowsize, strides)


class _Opener:
    """Opens the videos and the pictures of one run."""

    def __init__(self, options: SampleOptions, vae: str | Path | None) -> None:
        self._options, self._vae = options, vae

    def open(self, data_list: str | None, cache: str | None, clip: ClipOptions) -> Opened:
        if data_list is None and cache is None:
            kind, option = ("pictures", "image_data") if clip.num_frames == 1 else ("videos", "video_data")
            raise ValueError(f"there are no {kind}: name them with --{option}, or train on cached latents")
        entries = None
        if data_list is not None:
            # With a cache the files themselves are no longer needed.
            only_existing = self._options.filter_nonexistent and cache is None
            entries = open_list(data_list, self._options, only_existing)
        if cache is not None:
            return Opened(self._open_cache(cache, clip, entries), entries)
        assert entries is not None
        return Opened(FileDataset(entries, clip), entries)

    def _open_cache(self, folder: str, clip: ClipOptions, entries: Entries | None) -> Dataset:
        latents = LatentCache(folder)
        encoder = None if self._vae is None else encoder_digest(self._vae)
        if entries is None:
            latents.fingerprint.require(latents.folder, encoder)
        else:
            settings = {"clip": cut_settings(clip), "clips": clips_digest(entries)}
            latents.fingerprint.require(latents.folder, encoder, settings)
            if latents.fingerprint.count != len(entries) * latents.copies:
                raise ValueError(f"the cache {folder} has another number of clips than its list: {REMEDY}")
        return LatentDataset(latents, self._options.sample_posterior, entries)


def _text(options: DataOptions, text_encoder: str | Path | None, entries: Entries | None) -> CaptionFeatures:
    length = options.model_max_length or DEFAULT_TEXT_LENGTH
    if options.text_embed_cache and entries is not None:
        encoder = None if text_encoder is None else encoder_digest(text_encoder)
        folders = [source.text_folder for source in entries.sources]
        digests = [digest.captions for digest in entries.digests]
        return TextEmbeddings(folders, digests, length, encoder)
    if text_encoder is None:
        raise ValueError(
            "captions need the tokenizer of a text encoder: name its folder, "
            "or use cached embeddings with --text_embed_cache"
        )
    return TokenIds(text_encoder, length)


def clip_options(options: ClipOptions) -> ClipOptions:
    """The clip options of a larger set of options."""
    return ClipOptions(**{item.name: getattr(options, item.name) for item in fields(ClipOptions)})


def picture_options(clip: ClipOptions) -> ClipOptions:
    """The options for the pictures that accompany such clips."""
    return replace(clip, num_frames=1, sample_rate=1, use_image_num=0, use_img_from_vid=False)


def cut_settings(clip: ClipOptions) -> dict[str, Any]:
    """The settings that a clip's latents depend on. Pictures of another list have a cache of their own."""
    settings = asdict(clip if clip.use_img_from_vid else replace(clip, use_image_num=0))
    return {name: value for name, value in settings.items() if value is not None}


def open_list(path: str, options: ListOptions, only_existing: bool) -> Entries:
    """Index a data list. Raises ValueError if it has no usable record."""
    entries = Entries(read_data_list(path), only_existing, options.file_column, options.caption_column)
    if not entries:
        reasons = ", ".join(
            f"{reason} ({count}, first {entries.examples[reason]})"
            for reason, count in entries.rejected.items()
        )
        raise ValueError(f"data list {path} has no usable record: {reasons or 'its annotations are empty'}")
    return entries


def clips_digest(entries: Entries) -> str:
    """The digests of all paths and frame ranges of a list, one for each data set."""
    return " ".join(digest.clips[:16] for digest in entries.digests)
