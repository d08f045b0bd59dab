"""`opensora embed-text`: precompute the T5 embeddings of a data set's captions."""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from opensora.console import shortened
from opensora.data.caches.cache import CacheWriter, Fingerprint, encoder_digest
from opensora.data.lists.data_list import captions_bytes, captions_of
from opensora.data.lists.records import Record, scan
from opensora.data.options import DEFAULT_TEXT_LENGTH, EmbedTextOptions
from opensora.data.text.captions import caption_key
from opensora.data.text.cleaning import clean_caption
from opensora.data.text.tokenizer import Tokenizer
from opensora.models.spec import ModelSpec
from opensora.models.t5.model import T5Encoder
from opensora.runtime import mindspore

ms = mindspore()
log = logging.getLogger(__name__)

LENGTH_STEP = 32
"""Batches are padded to a multiple of this many tokens, because each length is compiled."""


def embed_text(options: EmbedTextOptions, prompts: list[str] | None = None) -> None:
    """Write the cache, or its missing blocks. prompts: the captions if no annotation file is named.

    An item is the embedding of one caption without padding, (tokens, D); the first is that of the empty
    caption. Raises ValueError for annotations that cannot be read or hold no caption, and for a folder with
    another cache.
    """
    folder, length = _model(options)

    def captions() -> Iterator[str]:
        if options.data_file_path is None:
            yield from prompts or []
            return
        for record in _records(options):
            yield from captions_of(record.content, options.caption_column)

    tokenizer = Tokenizer.from_folder(folder)
    fingerprint = Fingerprint(
        kind="text",
        encoder=encoder_digest(folder),
        settings={"model_max_length": length, "dtype": options.dtype},
        captions=_digest(options, prompts),
        count=sum(1 for _ in _distinct(captions())),
        block_size=options.block_size,
    )
    if fingerprint.count == 1 and not any(True for _ in captions()):
        raise ValueError(
            f"{options.data_file_path or options.prompt_path} has no caption under "
            f"{options.caption_column!r}: name the column with --caption_column"
        )
    writer = CacheWriter(options.output_path, fingerprint, options.dtype, options.rank, options.world_size)
    encoder: T5Encoder | None = None
    texts = _distinct(captions())
    for block in range(fingerprint.blocks):
        part = list(islice(texts, options.block_size))
        if writer.wants(block):
            encoder = encoder or T5Encoder.from_pretrained(folder)
            cleaned = [clean_caption(text) for text in part]
            _log_unread(tokenizer, cleaned, length)
            arrays = _embed(cleaned, tokenizer, encoder, length, options.batch_size)
            writer.write(block, [{"key": key} for key in arrays], arrays)
            log.info("embedded %d of %d captions", block * options.block_size + len(part), fingerprint.count)


def _model(options: EmbedTextOptions) -> tuple[str | Path, int]:
    """The text encoder's folder, and the maximum number of tokens."""
    folder: str | Path | None = options.text_encoder_name
    length = DEFAULT_TEXT_LENGTH
    if options.model_path is not None:
        spec = ModelSpec.find(options.model_path, options.version, options.text_encoder_name)
        folder, length = spec.paths.text_encoder, spec.text_length
    if folder is None:
        raise ValueError(
            f"{options.model_path} has no text_encoder: name its folder with --text_encoder_name"
        )
    return folder, options.model_max_length or length


def _records(options: EmbedTextOptions) -> Iterator[Record]:
    """The records of the annotation file, as `Entries` reads them; those that cannot be used are empty."""
    assert options.data_file_path is not None
    return scan(Path(options.data_file_path), texts=(options.caption_column,))


def _log_unread(tokenizer: Tokenizer, captions: list[str], length: int) -> None:
    unread = [caption for caption in captions if tokenizer.unread(caption, length)]
    if unread:
        log.warning(
            "%d of these %d captions have more than %d tokens, the rest is not read; the first is %r",
            len(unread),
            len(captions),
            length,
            shortened(unread[0]),
        )


def _embed(
    captions: list[str], tokenizer: Tokenizer, encoder: T5Encoder, length: int, batch_size: int
) -> dict[str, np.ndarray]:
    """Embeddings (tokens, D) by caption key.

    Batches are filled up with empty captions to one compiled size.
    """
    arrays: dict[str, np.ndarray] = {}
    for first in range(0, len(captions), batch_size):
        batch = captions[first : first + batch_size]
        filled = batch + [""] * (batch_size - len(batch))
        input_ids, mask = tokenizer(filled, length)  # (B, L)
        longest = -(-int(mask.sum(1).max()) // LENGTH_STEP) * LENGTH_STEP
        output = encoder(ms.Tensor(input_ids[:, :longest]), ms.Tensor(mask[:, :longest]))
        embeds = output.asnumpy()  # (B, longest, D)
        for caption, row, tokens in zip(batch, embeds, mask.sum(1), strict=False):
            arrays[caption_key(caption)] = row[:tokens]
    return arrays


def _distinct(captions: Iterable[str]) -> Iterator[str]:
    """The empty caption, then every other caption once."""
    yield ""
    seen = {caption_key("")}
    for caption in captions:
        key = caption_key(caption)
        if key not in seen:
            seen.add(key)
            yield caption


def _digest(options: EmbedTextOptions, prompts: list[str] | None) -> str:
    """The captions digest of `Entries.digests` for an annotation file, or that of the prompts."""
    digest = hashlib.sha256()
    if options.data_file_path is None:
        digest.update("\n".join(prompts or []).encode())
    else:
        for record in _records(options):
            digest.update(captions_bytes(record.content, options.caption_column))
    return digest.hexdigest()
