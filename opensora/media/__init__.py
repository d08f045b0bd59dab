"""Videos and pictures in and out of files."""

from opensora.media.reader import probe, read_video

__all__ = ["probe", "read_video"]
