"""CLIP's tokenizer: byte pairs (arXiv:1508.07909) of words in lower case.

Loads without MindSpore.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path

from opensora.config_files import checked, read_json
from opensora.weights import WeightsError

START, END = "<|startoftext|>", "<|endoftext|>"
LAST = "</w>"  # the end of a word's last piece
SHORT_ENDINGS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
MOST_BYTES = 2**26  # of merges.txt


class CLIPTokenizer:
    """The tokens of a text, with those for start and end.

    ids: the number of each piece. merges: pairs of pieces in the order in which they were learnt.
    """

    def __init__(self, ids: Mapping[str, int], merges: Sequence[tuple[str, str]], longest: int) -> None:
        """longest: tokens of a text, which is cut."""
        self.ids, self._longest = ids, longest
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._letters = _byte_letters()

    @classmethod
    def from_folder(cls, folder: str | Path, longest: int) -> "CLIPTokenizer":
        """From vocab.json and merges.txt. Raises WeightsError if they are missing or damaged."""
        vocab, merges = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        for path in (vocab, merges):
            if not path.is_file() or path.stat().st_size > MOST_BYTES:
                raise WeightsError(f"{path} is missing or too large: download the whole folder again")
        ids = checked(dict[str, int], read_json(vocab), vocab, "its content")
        try:
            lines = merges.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise WeightsError(f"{merges} is not UTF-8: download it again") from error
        rows = [line.split() for line in lines if line.strip() and not line.startswith("#version")]
        pieces = {START, END, *_byte_letters(), *(letter + LAST for letter in _byte_letters())}
        pieces |= {"".join(row) for row in rows}
        if any(len(row) != 2 for row in rows) or not pieces <= ids.keys() or min(ids.values()) < 0:
            raise WeightsError(f"{vocab} and {merges} do not fit together: download the folder again")
        return cls(ids, [(row[0], row[1]) for row in rows], longest)

    def __call__(self, text: str) -> list[int]:
        """The numbers of a text's tokens."""
        text = re.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).lower()
        pieces = [piece for word in _words(text) for piece in self._pieces(word)]
        return [self.ids[piece] for piece in (START, *pieces[: self._longest - 2], END)]

    def _pieces(self, word: str) -> list[str]:
        """A word's pieces: the pair of neighbours that was learnt first becomes one, again and again."""
        pieces = [self._letters[byte] for byte in word.encode()]
        pieces[-1] += LAST
        while len(pieces) > 1:
            best = min(pairwise(pieces), key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            pieces = _merged(pieces, best)
        return pieces


def _merged(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    found: list[str] = []
    rest = iter(range(len(pieces)))
    for place in rest:
        if tuple(pieces[place : place + 2]) == pair:
            found.append("".join(pair))
            next(rest)
        else:
            found.append(pieces[place])
    return found


def _words(text: str) -> Iterator[str]:
    """Runs of letters, single digits, runs of other signs, and the short endings of English words."""
    position = 0
    while position < len(text):
        ending = next((item for item in SHORT_ENDINGS if text.startswith(item, position)), None)
        if ending is not None:
            yield ending
            position += len(ending)
            continue
        kind, run = next(groupby(text[position:], _kind))
        word = "".join(run)
        if kind == "digit":
            word = word[0]
        if kind != "space":
            yield word
        position += len(word)


def _kind(letter: str) -> str:
    if letter.isspace():
        return "space"
    return {"L": "letter", "N": "digit"}.get(unicodedata.category(letter)[0], "sign")


def _byte_letters() -> list[str]:
    """A visible letter for every byte: itself in Latin-1, and from U+0100 on for those without one."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) if byte in visible else chr(256 + hidden.index(byte)) for byte in range(256)]
