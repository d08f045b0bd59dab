"""Videos and pictures: read from and written to files."""

from opensora.media.reader import probe, read_video

__all__ = ["probe", "read_video"]
