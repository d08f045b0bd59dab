"""The T5 tokenizer, a SentencePiece model (arXiv:1808.06226) in the text encoder's folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sentencepiece import SentencePieceProcessor

from opensora.weights import WeightsError

PADDING, END = 0, 1


LARGEST = 2**26
"""Bytes of a tokenizer; T5's has 0.8 million."""


class Tokenizer:
    """Token ids as in T5's training: no start token, one end token, padding on the right.

    The names of special tokens ("</s>", "<extra_id_0>") are plain text in a caption.
    """

    def __init__(self, path: str | Path) -> None:
        """path: a spiece.model file. Raises WeightsError if it is missing or damaged."""
        path = Path(path)
        if not path.is_file():
            raise WeightsError(
                f"{path} does not exist: copy spiece.model from the text encoder's release into the folder"
            )
        if path.stat().st_size > LARGEST:
            raise WeightsError(
                f"{path} is larger than {LARGEST:,} bytes, which no tokenizer is: check the path"
            )
        self._processor = SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(path.read_bytes())
        except RuntimeError as error:
            raise WeightsError(f"{path} is truncated or damaged: download it again") from error

    @classmethod
    def from_folder(cls, folder: str | Path) -> "Tokenizer":
        """The tokenizer of a text encoder's folder."""
        return cls(Path(folder) / "spiece.model")

    @property
    def size(self) -> int:
        """Number of ids. A text encoder's embedding has at least as many rows."""
        return int(self._processor.GetPieceSize())

    def __call__(self, texts: Sequence[str], max_length: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and mask, int32 (len(texts), max_length); the mask is 1 for tokens and 0 for padding.

        A text of more than max_length tokens is cut off before its end token. Raises ValueError for
        max_length < 1.
        """
        if max_length < 1:
            raise ValueError(f"max_length {max_length} leaves no room for the end token: use at least 1")
        input_ids = np.full((len(texts), max_length), PADDING, np.int32)
        attention_mask = np.zeros((len(texts), max_length), np.int32)
        for row, text in enumerate(texts):
            tokens = [*self._ids(text)[: max_length - 1], END]
            input_ids[row, : len(tokens)] = tokens
            attention_mask[row, : len(tokens)] = 1
        return input_ids, attention_mask

    def unread(self, text: str, max_length: int) -> str:
        """The end of a text that is cut off at max_length tokens; empty for a text that is read whole."""
        return str(self._processor.DecodeIds(self._ids(text)[max_length - 1 :]))

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._processor.EncodeAsIds(text.encode("utf-8", "replace").decode())
        return ids
