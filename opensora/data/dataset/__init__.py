"""Data sets to draw clips from, and samples put together into batches."""

from opensora.data.dataset.collate import collate

__all__ = ["collate"]
