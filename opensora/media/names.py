"""File names made from prompts."""

import re
import unicodedata

LONGEST_NAME = 120  # bytes; file systems allow 255, and suffixes and temporary names need room


def safe_name(prompt: str, index: int) -> str:
    """A file name without suffix that every file system accepts: the index, then the words of the prompt.

    Letters and digits of every script stay; each run of other characters becomes an underscore. The leading
    index keeps names distinct and clear of the names that Windows reserves.
    """
    words = re.sub(r"[\W_]+", "_", unicodedata.normalize("NFKC", prompt)).strip("_")
    shortened = words.encode("utf-8", "ignore")[:LONGEST_NAME].decode("utf-8", "ignore").strip("_")
    return f"{index:04d}-{shortened}" if shortened else f"{index:04d}"
