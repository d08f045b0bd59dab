"""Captions of a sample: choose one, clean or drop it, and give it as token ids or cached embeddings."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from opensora.data.caches.cache import REMEDY, Cache
from opensora.data.text.cleaning import clean_caption
from opensora.data.text.tokenizer import Tokenizer

EMPTY = "empty after cleaning"


class CaptionFeatures(Protocol):
    """The form in which captions reach a model."""

    def clean(self, caption: str) -> str:
        """The caption as it is read."""

    def __call__(self, captions: Sequence[str], source: int) -> dict[str, np.ndarray]:
        """Arrays of N cleaned captions by name, one of them text_mask (N, L).

        source: number of the data set in its list.
        """

    def fault(self, caption: str, source: int) -> str:
        """The reason why a cleaned caption cannot be trained on, or ""."""


def draw_caption(
    captions: Sequence[str],
    dropout: float,
    rng: np.random.Generator,
    clean: Callable[[str], str] = clean_caption,
) -> str:
    """Choose one of the captions and clean it; with the probability `dropout` return the empty caption."""
    dropped, index = rng.random() < dropout, int(rng.integers(len(captions)))
    return "" if dropped else clean(captions[index])


def caption_key(caption: str) -> str:
    """The key of a cleaned caption in a cache."""
    return hashlib.sha256(caption.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class TokenIds:
    """Captions as token ids. Picklable: a worker process loads the tokenizer itself."""

    def __init__(self, folder: str | Path, length: int) -> None:
        """folder: that of a text encoder, with spiece.model. Raises WeightsError if the file is missing."""
        self.folder, self.length = Path(folder), length
        self._tokenizer.size  # noqa: B018  report a missing file now, not in a worker

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.from_folder(self.folder)

    def clean(self, caption: str) -> str:
        return clean_caption(caption)

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "length": self.length}

    def __call__(self, captions: Sequence[str], source: int) -> dict[str, np.ndarray]:
        """input_ids and text_mask, int32 (N, L)."""
        input_ids, mask = self._tokenizer(captions, self.length)
        return {"input_ids": input_ids, "text_mask": mask}

    def fault(self, caption: str, source: int) -> str:
        """The reason why a cleaned caption cannot be trained on, or ""."""
        if not caption:
            return EMPTY
        unread = self._tokenizer.unread(caption, self.length)
        return f"longer than {self.length} tokens, so that the end is not read" if unread else ""


class TextEmbeddings:
    """Captions as embeddings from the caches of their data sets, made by `opensora embed-text`."""

    def __init__(
        self, folders: Sequence[Path | None], captions: Sequence[str], length: int, encoder: str | None
    ) -> None:
        """Open the caches and check that they belong to these captions and this encoder.

        folders, captions: cache folder and digest of the captions of each data set. encoder: digest of the
        text encoder, None for any. Raises ValueError for a cache of other captions or of another encoder.
        """
        self.length, self._caches = length, []
        for folder, digest in zip(folders, captions, strict=True):
            if folder is None:
                raise ValueError(
                    "text_embed_cache is set, but a line of the data list names no folder of text "
                    "embeddings: write it as the second column"
                )
            cache = Cache(folder, "text")
            cache.fingerprint.require(folder, encoder, {"model_max_length": length}, digest)
            self._caches.append(cache)

    def clean(self, caption: str) -> str:
        return clean_caption(caption)

    def fault(self, caption: str, source: int) -> str:
        """The reason why a cleaned caption cannot be trained on, or ""."""
        if not caption:
            return EMPTY
        return "" if caption_key(caption) in self._caches[source] else "not in the cache of text embeddings"

    def __call__(self, captions: Sequence[str], source: int) -> dict[str, np.ndarray]:
        """text_embeds float32 (N, L, D), 0 behind the last token, and text_mask int32 (N, L).

        source: number of the data set in its list.
        """
        cache = self._caches[source]
        rows = [cache.read(caption_key(caption)) for caption in captions]  # each (tokens, D)
        for row in rows:
            if row.ndim != 2 or len(row) > self.length or row.shape[1] != rows[0].shape[1]:
                raise ValueError(
                    f"the cache {cache.folder} has an array of shape {list(row.shape)}, where embeddings "
                    f"of at most {self.length} tokens belong: {REMEDY}"
                )
        embeds = np.zeros((len(rows), self.length, rows[0].shape[1]), np.float32)
        mask = np.zeros((len(rows), self.length), np.int32)
        for number, row in enumerate(rows):
            embeds[number, : len(row)] = row
            mask[number, : len(row)] = 1
        return {"text_embeds": embeds, "text_mask": mask}
