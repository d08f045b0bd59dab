"""Open a video file with PyAV: its first video stream, packets from a place in it, decoded frames."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from itertools import dropwhile, groupby
from pathlib import Path
from typing import BinaryIO

import av
import av.container
import av.error
import av.stream
from av.filter import Graph

from opensora.media.formats import DEMUXERS, MAX_PIXELS, file_url

log = logging.getLogger(__name__)

FAR_BACK = (0, 1, 4, 16)  # seconds before a wanted frame, one after the other, to look for a key frame
TRANSPORT_SUFFIXES = (".ts", ".mts", ".m2ts")
HIDDEN = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # the default ones leave the alpha channel out


_said: set[str] = set()


def say_once(kind: str, example: Path) -> None:
    """Log how files of a kind are read, with the first of them."""
    if kind not in _said:
        _said.add(kind)
        log.info("%s %s; other such files are not listed", example, kind)


@contextmanager
def open_container(path: Path) -> Iterator[av.container.InputContainer]:
    """A file in PyAV, whatever its name, if it has one of the formats that are read."""
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": ",".join(DEMUXERS),
        "max_pixels": str(MAX_PIXELS),
    }
    with ExitStack() as closing:
        file: str | BinaryIO = file_url(path)
        try:
            file_url(path).encode()
        except UnicodeEncodeError:  # PyAV takes UTF-8 names only
            file = closing.enter_context(open(path, "rb"))
        try:
            container = _open(file, options)
        except av.error.EOFError:
            if path.suffix.lower() not in TRANSPORT_SUFFIXES:
                raise
            container = _open(file, options, "mpegts")  # a few packets are too short to be recognised
        yield closing.enter_context(container)


def _open(
    file: str | BinaryIO, options: dict[str, str], container: str | None = None
) -> av.container.InputContainer:
    return av.open(file, "r", format=container, options=options, metadata_errors="replace", buffer_size=2**18)


@contextmanager
def open_stream(path: Path, threads: bool = True) -> Iterator["VideoStream"]:
    """The first video of a file. Raises ValueError if there is none, FFmpegError for a damaged file."""
    stream = VideoStream(path, threads)
    try:
        yield stream
    finally:
        stream.close()


class VideoStream:
    """A video stream, from its first packet on until `seek`."""

    def __init__(self, path: Path, threads: bool) -> None:
        self._path, self._threads = path, threads
        self._open()

    def close(self) -> None:
        self._closing.close()

    def _open(self) -> None:
        self._closing = ExitStack()
        try:
            self._prepare(self._closing.enter_context(open_container(self._path)))
        except BaseException:
            self.close()
            raise

    def _prepare(self, container: av.container.InputContainer) -> None:
        self._container = container
        self.stream = self._video()
        codec = self.stream.codec_context
        if codec is None:
            raise ValueError("its codec is unknown")
        alpha = ALPHA_DECODERS.get(codec.name) if self.stream.metadata.get("alpha_mode") == "1" else None
        if alpha is not None:
            decoder = av.CodecContext.create(alpha, "r")
            assert isinstance(decoder, av.VideoCodecContext)
            decoder.extradata = codec.extradata
            codec = decoder
        codec.options = {"max_pixels": str(MAX_PIXELS)}
        if not self._threads:  # the pixels do not count
            codec.options |= {"skip_loop_filter": "all"}
        codec.thread_type = "AUTO" if self._threads else "NONE"
        self.decoder = codec

    def _video(self) -> av.VideoStream:
        videos = self._container.streams.video
        shown = [stream for stream in videos if not stream.disposition & HIDDEN]
        if not shown:
            raise ValueError("it has a cover picture, and no video" if videos else "it has no video stream")
        return shown[0]

    @property
    def tick(self) -> Fraction:
        """Seconds of a time unit."""
        assert self.stream.time_base is not None
        return Fraction(self.stream.time_base)

    @property
    def format(self) -> str:
        return str(self._container.format.name)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._path.stat().st_size

    def packets(self) -> Iterator[av.Packet]:
        """Packets from here to the end."""
        return (packet for packet in self._container.demux(self.stream) if packet.size)

    def decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        """The frames that are complete with this packet, or with None as the last one."""
        try:
            frames = self.decoder.decode(packet)
        except av.error.EOFError:
            return []
        for frame in frames:
            frame.time_base = self.tick  # the last ones have none
        return frames

    def frames(self) -> Iterator[av.VideoFrame]:
        """Frames from here to the end, as they are presented."""
        started = False
        for packet in self.packets():
            try:
                frames = self.decode(packet)
            except av.error.InvalidDataError:
                # A file that was cut begins or ends with packets that cannot be decoded.
                if started and not packet.is_corrupt:
                    raise
                continue
            started = started or bool(frames)
            yield from frames
        yield from self.decode(None)

    def frames_before(self, latest: int, key_times: frozenset[int] | None) -> Iterator[av.VideoFrame]:
        """Frames from a key frame presented at or before `latest`, in ticks, or from the file's start.

        A seek lands where the container's index says. Some formats land anywhere, or lose count of the time.
        So the landing place is checked against `key_times`; None trusts the index.
        """

        def is_key(frame: av.VideoFrame) -> bool:
            return frame.key_frame and (key_times is None or frame.pts in key_times)

        for back in FAR_BACK:
            try:
                self._container.seek(latest - int(back / self.tick), stream=self.stream)
            except av.error.FFmpegError:
                break
            self.decoder.flush_buffers()
            # Frames before the key frame may refer to others that were not decoded.
            found = dropwhile(lambda frame: not is_key(frame), self.frames())
            head = next(found, None)
            if head is not None and head.pts is not None and head.pts <= latest:
                yield head
                yield from found
                return
        self.close()
        self._open()
        yield from self.frames()


def frame_time(frame: av.VideoFrame) -> Fraction:
    """When a frame that has a time is presented, in seconds."""
    assert frame.pts is not None and frame.time_base is not None
    return frame.pts * frame.time_base


def deinterlaced(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """Interlaced frames as progressive ones, at the same times. Each needs the one before and after it.

    Size and format may change within a stream: FFmpeg aborts the process if a filter meets other frames than
    it was configured for.
    """
    for _, alike in groupby(frames, lambda frame: (frame.width, frame.height, frame.format.name)):
        yield from _deinterlaced_alike(alike)


def _deinterlaced_alike(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    first = next(frames)
    graph = Graph()
    source = graph.add_buffer(
        width=first.width, height=first.height, format=first.format, time_base=first.time_base
    )
    graph.link_nodes(source, graph.add("bwdif", "send_frame"), graph.add("buffersink")).configure()
    graph.vpush(first)
    yield from pulled(graph)
    for frame in frames:
        graph.vpush(frame)
        yield from pulled(graph)
    graph.vpush(None)
    yield from pulled(graph)


def pulled(graph: Graph) -> Iterator[av.VideoFrame]:
    """The frames that a graph has ready."""
    while True:
        try:
            yield graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
