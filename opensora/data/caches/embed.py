"""`opensora embed-text`: what T5 makes of the captions of a data set, computed once."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from opensora.data.caches.cache import CacheWriter, Fingerprint, encoder_digest
from opensora.data.lists.data_list import captions_bytes, captions_of
from opensora.data.lists.records import scan
from opensora.data.options import EmbedTextOptions
from opensora.data.text.captions import caption_key
from opensora.data.text.cleaning import clean_caption
from opensora.data.text.tokenizer import Tokenizer
from opensora.models.t5.model import T5Encoder
from opensora.runtime import mindspore

ms = mindspore()
log = logging.getLogger(__name__)

LENGTH_STEP = 32
"""Batches are as long as their longest caption, in so many steps, since each length is compiled once."""


def embed_text(options: EmbedTextOptions, prompts: list[str] | None = None) -> None:
    """Write the cache that `options` ask for, or what is missing of it; `prompts` where no annotation file is named.

    Each item is the embedding of one caption without its padding, (tokens, D); the first is the empty caption's. Raises ValueError.
    """

    def captions() -> Iterator[str]:
        if options.data_file_path is None:
            return iter(prompts or [])
        records = scan(Path(options.data_file_path))
        return (
            caption for record in records for caption in captions_of(record.content, options.caption_column)
        )

    tokenizer = Tokenizer.from_folder(options.text_encoder_name)
    fingerprint = Fingerprint(
        kind="text",
        encoder=encoder_digest(options.text_encoder_name),
        settings={"model_max_length": options.model_max_length, "dtype": options.dtype},
        captions=_digest(options, prompts),
        count=sum(1 for _ in _different(captions())),
        block_size=options.block_size,
    )
    writer = CacheWriter(options.output_path, fingerprint, options.dtype, options.rank, options.world_size)
    encoder: T5Encoder | None = None
    texts = _different(captions())
    for block in range(fingerprint.blocks):
        part = list(islice(texts, options.block_size))
        if writer.wants(block):
            encoder = encoder or T5Encoder.from_pretrained(options.text_encoder_name)
            arrays = _embed([clean_caption(text) for text in part], tokenizer, encoder, options)
            writer.write(block, [{"key": key} for key in arrays], arrays)
            log.info("embedded %d of %d captions", block * options.block_size + len(part), fingerprint.count)


def _embed(
    captions: list[str], tokenizer: Callable, encoder: T5Encoder, options: EmbedTextOptions
) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for first in range(0, len(captions), options.batch_size):
        batch = captions[first : first + options.batch_size]
        input_ids, mask = tokenizer(
            batch + [""] * (options.batch_size - len(batch)), options.model_max_length
        )
        longest = -(-int(mask.sum(1).max()) // LENGTH_STEP) * LENGTH_STEP
        embeds = encoder(
            ms.Tensor(input_ids[:, :longest]), ms.Tensor(mask[:, :longest])
        ).asnumpy()  # (B, longest, D)
        arrays |= {
            caption_key(text): row[:tokens]
            for text, row, tokens in zip(batch, embeds, mask.sum(1), strict=False)
        }
    return arrays


def _different(captions: Iterable[str]) -> Iterator[str]:
    """The empty caption, then each other one once."""
    yield ""
    seen = {caption_key("")}
    for caption in captions:
        key = caption_key(caption)
        if key not in seen:
            seen.add(key)
            yield caption


def _digest(options: EmbedTextOptions, prompts: list[str] | None) -> str:
    """As `Entries.digests` has it for an annotation file."""
    digest = hashlib.sha256()
    if options.data_file_path is None:
        digest.update("\n".join(prompts or []).encode())
    else:
        for record in scan(Path(options.data_file_path)):
            digest.update(captions_bytes(record.content, options.caption_column))
    return digest.hexdigest()
