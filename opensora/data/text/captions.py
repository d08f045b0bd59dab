"""The text half of a sample: one of the captions, cleaned or left out, as token ids or as cached embeddings."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from opensora.data.caches.cache import Cache
from opensora.data.text.cleaning import clean_caption
from opensora.data.text.tokenizer import Tokenizer


def choose(captions: Sequence[str], dropout: float, rng: np.random.Generator) -> str:
    """One of the captions, cleaned; empty with the probability `dropout`."""
    dropped, place = rng.random() < dropout, int(rng.integers(len(captions)))
    return "" if dropped else clean_caption(captions[place])


def caption_key(caption: str) -> str:
    """The name of a cleaned caption in a cache."""
    return hashlib.sha256(caption.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class TokenIds:
    """Captions as token ids. Copies of it that go to other processes load the tokenizer there."""

    def __init__(self, folder: str | Path, length: int) -> None:
        """folder: of a text encoder, with spiece.model. Raises WeightsError where that is missing."""
        self.folder, self.length = Path(folder), length
        self._tokenizer.size  # noqa: B018  a missing file is told now, and not by a worker

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.from_folder(self.folder)

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "length": self.length}

    def __call__(self, captions: Sequence[str], source: int) -> dict[str, np.ndarray]:
        """input_ids and text_mask, int32 (N, L)."""
        input_ids, mask = self._tokenizer(captions, self.length)
        return {"input_ids": input_ids, "text_mask": mask}


class TextEmbeddings:
    """Captions as embeddings out of the caches of their data sets, made by `opensora embed-text`."""

    def __init__(
        self, folders: Sequence[Path | None], captions: Sequence[str], length: int, encoder: str | None
    ) -> None:
        """A folder and a digest of the captions for each data set; `encoder` None accepts any. Raises ValueError for another cache."""
        self.length, self._caches = length, []
        for folder, digest in zip(folders, captions, strict=True):
            if folder is None:
                raise ValueError(
                    "text_embed_cache is set, but a line of the data list has no folder of text embeddings: write it as second column"
                )
            cache = Cache(folder, "text")
            cache.fingerprint.require(folder, encoder, {"model_max_length": length}, digest)
            self._caches.append(cache)

    def __call__(self, captions: Sequence[str], source: int) -> dict[str, np.ndarray]:
        """text_embeds float32 (N, L, D), 0 behind the last token, and text_mask int32 (N, L)."""
        rows = [self._caches[source].read(caption_key(caption)) for caption in captions]  # (tokens, D) each
        embeds = np.zeros((len(rows), self.length, rows[0].shape[1]), np.float32)
        mask = np.zeros((len(rows), self.length), np.int32)
        for number, row in enumerate(rows):
            embeds[number, : len(row)] = row
            mask[number, : len(row)] = 1
        return {"text_embeds": embeds, "text_mask": mask}


Text = TokenIds | TextEmbeddings
