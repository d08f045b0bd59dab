"""Write video files frame by frame: .mp4 with the sound of another file, .mov, .mkv and .webm."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from opensora.files import atomic_path
from opensora.media.audio import open_audio
from opensora.media.errors import writing
from opensora.media.formats import file_url
from opensora.media.timeline import as_rate

# With several threads the bytes would depend on the machine. mbtree sums macroblocks in code that reads past
# the end of small frames: one in about thirty encodings of 32x32 pixels came out different.
X264 = {"crf": "17", "preset": "medium", "threads": "1", "mbtree": "0", "colorspace": "smpte170m"}
VP9 = {"crf": "18", "b": "0", "threads": "1", "row-mt": "0", "deadline": "good", "colorspace": "smpte170m"}


class Container(NamedTuple):
    """FFmpeg's names of a file format and its codec, and the codec's options."""

    name: str
    codec: str
    options: dict[str, str]


CONTAINERS = {
    ".mp4": Container("mp4", "libx264", X264),
    ".mov": Container("mov", "libx264", X264),
    ".mkv": Container("matroska", "libx264", X264),
    ".webm": Container("webm", "libvpx-vp9", VP9),
}


@contextmanager
def open_mp4(path: str | Path, fps: float, audio: str | Path | None = None) -> Iterator["VideoWriter"]:
    """A writer of one video. The file appears when the block succeeds, complete, or not at all.

        with open_mp4("out.mp4", fps=24, audio="in.mp4") as writer:
            writer.write(frame)

    audio: a video whose sound is kept. Raises ValueError for a path that cannot be written, OSError for a
    full disk.
    """
    path = Path(path)
    with writing(path), atomic_path(path) as temporary:
        writer = VideoWriter(temporary, fps, None if audio is None else Path(audio))
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()


class VideoWriter:
    """Writes what browsers play: H.264, or VP9 in a .webm. Memory does not grow with the number of frames."""

    def __init__(self, path: Path, fps: float, audio: Path | None = None) -> None:
        """path: its ending, one of CONTAINERS, chooses the format."""
        container = CONTAINERS[path.suffix.lower()]
        options = {"fflags": "+bitexact"}
        if container.name in ("mp4", "mov"):
            options["movflags"] = "+faststart"
        self._container = av.open(file_url(path), "w", format=container.name, options=options)
        self._rate = as_rate(fps)
        stream = self._container.add_stream(container.codec, rate=self._rate, options=container.options)
        assert isinstance(stream, av.VideoStream)
        self._stream = stream
        self._stream.pix_fmt = "yuv420p"
        self._audio = None if audio is None else open_audio(audio, self._container)
        self._frames = 0

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, uint8 (H, W, 3); an odd height or width grows by one, a copy of the last."""
        height, width = frame.shape[:2]
        pixels = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if not self._frames:
            self._stream.height, self._stream.width = pixels.shape[:2]
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        self._frames += 1
        if self._audio is not None:
            self._audio.write_until(float(self._frames / self._rate))

    def finish(self) -> None:
        """Write what the encoder holds back and the rest of the sound."""
        self._container.mux(self._stream.encode())
        if self._audio is not None:
            self._audio.write_until(float("inf"))

    def close(self) -> None:
        self._container.close()
        if self._audio is not None:
            self._audio.close()
