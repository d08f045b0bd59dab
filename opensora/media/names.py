"""File names made from prompts."""

import re
import unicodedata

LONGEST_NAME = 120  # bytes; file systems allow 255, and suffixes and temporary names need room


def safe_name(prompt: str, index: int) -> str:
    """A file name, without suffix, that any file system takes: the index, then what is left of the prompt.

    Letters and digits of every script stay, all else becomes one underscore. The index in front keeps names different
    and clear of those that Windows reserves.
    """
    words = re.sub(r"[\W_]+", "_", unicodedata.normalize("NFKC", prompt)).strip("_")
    shortened = words.encode("utf-8", "ignore")[:LONGEST_NAME].decode("utf-8", "ignore").strip("_")
    return f"{index:04d}-{shortened}" if shortened else f"{index:04d}"
