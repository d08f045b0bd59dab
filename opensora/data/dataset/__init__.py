"""Data sets, one module a kind, and `collate`, which puts samples together into a batch."""

from opensora.data.dataset.arrays import ArrayClips, ArrayDataset
from opensora.data.dataset.base import Dataset
from opensora.data.dataset.collate import collate
from opensora.data.dataset.demo import DemoDataset
from opensora.data.dataset.files import FileDataset
from opensora.data.dataset.latents import LatentDataset
from opensora.data.dataset.videos import VideoDataset

__all__ = [
    "ArrayClips",
    "ArrayDataset",
    "Dataset",
    "DemoDataset",
    "FileDataset",
    "LatentDataset",
    "VideoDataset",
    "collate",
]
