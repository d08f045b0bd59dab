"""Carry the sound of a video file over to another file, packet by packet."""

from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import av.container
import av.error

from opensora.media.container import open_container
from opensora.media.formats import PICTURE_SUFFIXES

COPIED = ("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac")
"""Codecs that an .mp4 file may hold; sound of another codec becomes AAC with at most two channels."""
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
DEFAULT_RATE = 48000  # samples per second


class Track(Protocol):
    """An audio stream of the output."""

    def convert(self, packet: "av.Packet[av.AudioStream]") -> Iterator[av.Packet]:
        """The packets to write for a packet of the source; an empty one is the source's last."""
        ...


class Audio:
    """All audio streams of `source`, written to `container` in step with its video.

    Time 0 of the output is the first frame of the source's video.
    """

    def __init__(self, source: Path, container: av.container.OutputContainer) -> None:
        self._container = container
        self._closing = ExitStack()
        self._source = self._closing.enter_context(open_container(source))
        start = self._video_start()
        self._tracks: dict[int, Track] = {
            stream.index: (_Copy if stream.codec.canonical_name in COPIED else _Encoding)(
                stream, container, round(start / (stream.time_base or 1))
            )
            for stream in self._source.streams.audio
            if stream.codec_context is not None
        }
        self._packets = self._converted()
        self._next = next(self._packets, None)

    def _video_start(self) -> Fraction:
        """The time of the first frame in seconds."""
        videos = self._source.streams.video
        return (videos[0].start_time or 0) * (videos[0].time_base or Fraction(0)) if videos else Fraction(0)

    def write_until(self, time: float) -> None:
        """Write the packets up to `time`, in seconds of the output."""
        while self._next is not None and (self._next.pts or 0) * self._next.time_base <= time:
            self._container.mux(self._next)
            self._next = next(self._packets, None)

    def close(self) -> None:
        self._closing.close()

    def _converted(self) -> Iterator[av.Packet]:
        streams = tuple(stream for stream in self._source.streams.audio if stream.index in self._tracks)
        for packet in self._source.demux(streams) if streams else ():
            yield from self._tracks[packet.stream.index].convert(packet)


def open_audio(source: Path, container: av.container.OutputContainer) -> Audio | None:
    """None for pictures and animations, which have no sound."""
    return None if source.suffix.lower() in PICTURE_SUFFIXES else Audio(source, container)


class _Copy:
    """Packets as they are. Damaged ones without a time, or out of order, are left out."""

    def __init__(self, stream: av.AudioStream, container: av.container.OutputContainer, start: int) -> None:
        """start: ticks of the stream at the first frame of the video."""
        self._output = container.add_stream_from_template(stream)
        self._start = start
        self._last: int | None = None

    def convert(self, packet: "av.Packet[av.AudioStream]") -> Iterator[av.Packet]:
        if packet.dts is None or (self._last is not None and packet.dts <= self._last):
            return
        self._last = packet.dts
        packet.dts -= self._start
        packet.pts = packet.dts  # sound is stored in the order in which it plays; AVI names no other time
        packet.stream = self._output
        yield packet


class _Encoding:
    """Packets decoded and encoded again."""

    def __init__(self, stream: av.AudioStream, container: av.container.OutputContainer, start: int) -> None:
        """start: ticks of the stream at the first frame of the video."""
        codec = stream.codec_context
        rate = codec.sample_rate if codec.sample_rate in AAC_RATES else DEFAULT_RATE
        layout = "mono" if codec.channels == 1 else "stereo"
        self._output = container.add_stream("aac", rate=rate, layout=layout)
        self._layout, self._rate, self._start = layout, rate, start
        self._resampler, self._kind = self._make_resampler(), ("", "", 0)
        self._last: int | None = None

    def _make_resampler(self) -> av.AudioResampler:
        size = self._output.codec_context.frame_size or 1024
        return av.AudioResampler("fltp", self._layout, self._rate, size)

    def convert(self, packet: "av.Packet[av.AudioStream]") -> Iterator[av.Packet]:
        for frame in self._decoded(packet):
            if frame.pts is not None:
                frame.pts -= self._start
            kind = (frame.format.name, frame.layout.name, frame.sample_rate)
            if kind != self._kind:  # as between the programmes of a broadcast
                yield from self._rest()
                self._resampler, self._kind = self._make_resampler(), kind
            for part in self._resampler.resample(frame):
                yield from self._encoded(part)
        if not packet.size:
            yield from self._rest()
            yield from self._encoded(None)

    def _encoded(self, frame: av.AudioFrame | None) -> Iterator[av.Packet]:
        """Packets in order: the clock of a broadcast may start again."""
        for packet in self._output.encode(frame):
            if packet.dts is not None and (self._last is None or packet.dts > self._last):
                self._last = packet.dts
                yield packet

    def _rest(self) -> Iterator[av.Packet]:
        """The samples that are still in the resampler."""
        if self._kind[2]:
            for part in self._resampler.resample(None):
                yield from self._encoded(part)

    def _decoded(self, packet: "av.Packet[av.AudioStream]") -> list[av.AudioFrame]:
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:  # a damaged packet: the sound has a gap
            return []
        return frames
