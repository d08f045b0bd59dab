"""The T5 tokenizer: captions to token ids by the SentencePiece model (arXiv:1808.06226) that lies beside a text encoder's weights."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sentencepiece import SentencePieceProcessor

from opensora.weights import WeightsError

PADDING, END = 0, 1


class Tokenizer:
    """Captions to ids as T5 was trained: no start token, one end token, padding on the right.

    The names of T5's special tokens ("</s>", "<extra_id_0>") have no meaning here: written in a caption they are plain text.
    """

    def __init__(self, path: str | Path) -> None:
        """path: a spiece.model file. Raises WeightsError where it is missing or damaged."""
        path = Path(path)
        if not path.is_file():
            raise WeightsError(
                f"{path} does not exist: copy spiece.model from the text encoder's release into the folder"
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
        """How many different ids there are; a text encoder's embedding has at least as many rows."""
        return int(self._processor.GetPieceSize())

    def __call__(self, texts: Sequence[str], max_length: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and attention mask, both int32 (len(texts), max_length); the mask is 1 for tokens and 0 for padding.

        A text of more than max_length tokens loses its end, but not its end token. Raises ValueError for a max_length below 1.
        """
        if max_length < 1:
            raise ValueError(f"max_length {max_length} leaves no room for the end token: use at least 1")
        input_ids = np.full((len(texts), max_length), PADDING, np.int32)
        attention_mask = np.zeros((len(texts), max_length), np.int32)
        for row, text in enumerate(texts):
            tokens = [*self._processor.EncodeAsIds(text)[: max_length - 1], END]
            input_ids[row, : len(tokens)] = tokens
            attention_mask[row, : len(tokens)] = 1
        return input_ids, attention_mask
