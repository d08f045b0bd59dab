"""Captions and prompts: reading, cleaning, tokens and cached embeddings."""

from opensora.data.text.cleaning import clean_caption

__all__ = ["clean_caption"]
