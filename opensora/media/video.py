"""Videos in PyAV: their timeline and layout, and their frames as RGB pixels.

Where it can, the timeline comes from the container's index; else every packet is looked at, without decoding.
Only the first frame is decoded: it tells the orientation, the shape of a pixel and whether it is interlaced.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import av
import av.error
import numpy as np
from av.sidedata.sidedata import SideData
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from opensora.media.container import VideoStream, deinterlaced, frame_time, open_stream, say_once
from opensora.media.formats import require_pixels
from opensora.media.orientation import UPRIGHT, Orientation, of_display_matrix
from opensora.media.pixels import on_white
from opensora.media.timeline import DEFAULT_FPS, LATE, MAX_HOLD, Timeline, from_times, select

log = logging.getLogger(__name__)

# The scaler's default arithmetic darkens decoded pixels by one or two levels.
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
HDR = {16: "PQ", 18: "HLG"}  # by the transfer characteristics of ISO/IEC 23091-2
UNSPECIFIED = 2  # the matrix coefficients of ISO/IEC 23091-2
SD_WIDTH, SD_HEIGHT = 1279, 576  # the largest picture that players take for standard definition
STRETCH = 8  # largest ratio of a pixel's sides that is believed
PACKETS_CHECKED = 32  # of a file whose index is regular
REORDERED = 17  # intervals by which a frame may follow a later one; codecs allow 16 frames
RAW = ("h264", "hevc", "mpegvideo", "m4v", "obu")  # streams of a codec without a container
RESTARTING = ("mpegts", "mpeg")  # formats whose clock may start again, as after cutting
NEAR = 8  # frames that are decoded from the start rather than sought
UNDECODED = 2  # frames that may be missing at the end: packets that hold no picture of their own


class VideoFacts(NamedTuple):
    """A video's properties, known before it is read.

    height, width: of the stored frames, with square pixels. is_timed is false where frames carry no times, or
    guesses: then they are counted. key_times: presentation times of key frames in ticks, None where the index
    is to be trusted.
    """

    timeline: Timeline
    height: int
    width: int
    orientation: Orientation
    is_timed: bool
    is_interlaced: bool
    is_hd_untagged: bool
    has_palette: bool
    key_times: frozenset[int] | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the upright frames."""
        return self.orientation.size(self.height, self.width)


class PacketInfo(NamedTuple):
    """When a packet's frame is presented and for how long, in ticks."""

    pts: int | None
    duration: int
    is_key: bool
    is_corrupt: bool


def describe(path: Path) -> VideoFacts:
    """Raises ValueError for a file without a video that can be decoded, FFmpegError for a damaged one."""
    with open_stream(path, threads=False) as source:
        require_pixels(source.decoder.height, source.decoder.width)
        stamps = _even_stamps(path, source)
        packets: list[PacketInfo] = []
        first = timeline = None
        for packet in source.packets():
            if not packet.is_discard:
                packets.append(
                    PacketInfo(packet.pts, packet.duration or 0, packet.is_keyframe, packet.is_corrupt)
                )
            first = first or _first_frame(source, packet)
            if stamps is not None and first is not None and len(packets) >= PACKETS_CHECKED:
                timeline = _even_timeline(source, stamps, packets)
                if timeline is not None:
                    break
                stamps = None
        if packets and packets[-1].is_corrupt:  # a part of a frame
            packets.pop()
        first = first or _first_frame(source, None)
        if first is None or not packets:
            raise ValueError("none of its frames can be decoded")
        if timeline is not None:
            return _facts(path, source, first, timeline, True, None)
        is_timed = first.pts is not None and _has_times(source, packets)
        timeline = _timeline(source, packets, first) if is_timed else _counted(source, packets)
        keys = frozenset(packet.pts for packet in packets if packet.is_key and packet.pts is not None)
        return _facts(path, source, first, timeline, is_timed, keys)


def _first_frame(source: VideoStream, packet: av.Packet | None) -> av.VideoFrame | None:
    try:
        return next(iter(source.decode(packet)), None)
    except av.error.InvalidDataError:  # a file that was cut begins in the middle
        return None


def _even_stamps(path: Path, source: VideoStream) -> np.ndarray | None:
    """Decoding times of all frames in ticks, if the index holds them and they are evenly spaced."""
    stream, size = source.stream, path.stat().st_size
    if stream.frames > size:
        raise ValueError(f"it claims {stream.frames:,} frames in {size:,} bytes, the file is damaged")
    entries = list(stream.index_entries)
    if not stream.frames or len(entries) != stream.frames or any(entry.is_discard for entry in entries):
        return None
    stamps = [entry.timestamp for entry in entries if entry.pos + entry.size <= size]
    if not stamps:
        raise ValueError("it is cut off before its first frame")
    if len(stamps) < len(entries):
        log.warning("%s is cut off: it has %d of its %d frames", path, len(stamps), len(entries))
    spaces = np.diff(stamps)
    is_even = len(stamps) > 1 and spaces[0] > 0 and (spaces == spaces[0]).all()
    return np.array(stamps) if is_even and not _are_guesses(source) else None


def _even_timeline(source: VideoStream, stamps: np.ndarray, packets: list[PacketInfo]) -> Timeline | None:
    """The timeline of an even index, if the first packets are presented as evenly as they are decoded."""
    space, count = int(stamps[1] - stamps[0]), len(stamps)
    times = [packet.pts for packet in packets if packet.pts is not None]
    first = min(times, default=0)
    if len(times) < len(packets) or any((time - first) % space for time in times):
        return None
    # The last frame of a screen recording may be held.
    held = (source.stream.duration or 0) // space if count == source.stream.frames else 0
    rate = 1 / (space * source.tick)
    if (held - count) / rate > MAX_HOLD:
        return None
    return Timeline(max(count, held), rate, first * source.tick, count - 1)


def _are_guesses(source: VideoStream) -> bool:
    """AVI stores no presentation times: with reordered frames FFmpeg's are wrong, decode order is right."""
    return source.format == "avi" and bool(source.stream.codec_context.has_b_frames)


def _has_times(source: VideoStream, packets: list[PacketInfo]) -> bool:
    times = [packet.pts for packet in packets if packet.pts is not None]
    if len(times) < len(packets) or _are_guesses(source):
        return False
    if len(times) < 2:
        return True
    behind = np.maximum.accumulate(times) - times
    gaps = np.diff(np.unique(times), append=max(times) + 1)
    jumps = behind.max() > REORDERED * np.median(gaps) or gaps.max() * source.tick > MAX_HOLD
    if jumps and source.format not in RESTARTING:
        raise ValueError("the times of its frames jump, the file is damaged: convert it")
    return not jumps


def _timeline(source: VideoStream, packets: list[PacketInfo], first: av.VideoFrame) -> Timeline:
    origin = frame_time(first)
    # What precedes the first frame that can be decoded is never seen.
    begin = math.floor(origin / source.tick)
    seen = [(packet.pts - begin, packet.duration) for packet in packets if packet.pts is not None]
    seen = [(time, duration) for time, duration in seen if time >= 0]
    times = np.array([time for time, _ in seen], np.float64) * float(source.tick)
    end = max(time + duration for time, duration in seen)
    return from_times(times, float(end * source.tick), source.tick, _declared(source), origin)


def _counted(source: VideoStream, packets: list[PacketInfo]) -> Timeline:
    rate = next(iter(_declared(source)), Fraction(DEFAULT_FPS))
    return Timeline(len(packets), rate, last=len(packets) - 1)


def _declared(source: VideoStream) -> list[Fraction]:
    stream = source.stream
    rates = [stream.average_rate, stream.guessed_rate, stream.base_rate]
    if source.format in RAW:  # whose average is FFmpeg's assumption; the codec's headers may tell the rate
        rates = rates[1:]
    return [Fraction(rate) for rate in rates if rate and 0 < rate <= 1000]


def _facts(
    path: Path,
    source: VideoStream,
    first: av.VideoFrame,
    timeline: Timeline,
    is_timed: bool,
    key_times: frozenset[int] | None,
) -> VideoFacts:
    height, width = first.height, first.width
    is_hd = width > SD_WIDTH or height > SD_HEIGHT
    is_hd_untagged = is_hd and first.colorspace == UNSPECIFIED and _is_yuv(first.format)
    if is_hd_untagged:
        say_once("names no colour matrix: read as BT.709, as players read HD", path)
    if first.interlaced_frame:
        say_once("is interlaced: deinterlaced", path)
    if first.color_trc in HDR:
        say_once(
            f"is HDR ({HDR[first.color_trc]}): its colours look pale, convert it with tone mapping", path
        )
    aspect = source.stream.sample_aspect_ratio or 1
    if 1 / STRETCH <= aspect <= STRETCH:
        width = max(1, round(width * aspect))
    require_pixels(height, width)
    side_data: Mapping[str, SideData] = first.side_data  # type: ignore[assignment]  # PyAV's stub is wrong
    matrix = side_data.get("DISPLAYMATRIX")
    orientation = UPRIGHT if matrix is None else of_display_matrix(np.frombuffer(bytes(matrix), np.int32))
    is_interlaced = bool(first.interlaced_frame)
    return VideoFacts(
        timeline,
        height,
        width,
        orientation,
        is_timed,
        is_interlaced,
        is_hd_untagged,
        first.format.has_palette,
        key_times,
    )


def _is_yuv(pixel_format: av.VideoFormat) -> bool:
    return not pixel_format.is_rgb and not pixel_format.has_palette and len(pixel_format.components) > 2


def read_frames(
    path: Path, facts: VideoFacts, slots: Iterator[int], size: tuple[int, int] | None
) -> Iterator[np.ndarray]:
    """Yield the frames at the timeline's `slots`, in ascending order: uint8 (H, W, 3), resized to `size`."""
    first = next(slots, None)
    if first is None:
        return
    with open_stream(path) as source:
        decoded = _decoded(source, facts, first)
        shown = _shown(deinterlaced(decoded) if facts.is_interlaced else decoded, facts)
        yield from select(shown, chain([first], slots), _Converter(facts, size))


def _decoded(source: VideoStream, facts: VideoFacts, first: int) -> Iterator[av.VideoFrame]:
    """Decoded frames from before slot `first`."""
    timeline = facts.timeline
    before = first - 1 if facts.is_interlaced else first  # deinterlacing takes the frame before, too
    # A palette comes with the first packet, and others may follow.
    if before < NEAR or not facts.is_timed or facts.has_palette:
        return source.frames()
    latest = timeline.origin + (before + Fraction(LATE)) / timeline.rate
    return source.frames_before(math.floor(latest / source.tick), facts.key_times)


def _shown(decoded: Iterator[av.VideoFrame], facts: VideoFacts) -> Iterator[tuple[int, av.VideoFrame]]:
    """Frames, each with the slot at which the next one follows."""
    timeline, slot, frame = facts.timeline, -1, None
    for following in decoded:
        require_pixels(following.height, following.width)
        is_counted = not facts.is_timed or following.pts is None
        next_slot = slot + 1 if is_counted else timeline.slot(frame_time(following))
        if frame is not None:
            yield next_slot, frame
        slot, frame = next_slot, following
    if frame is None or slot < timeline.last - UNDECODED:
        raise ValueError(f"frame {slot + 1} of {timeline.frames} cannot be decoded, the file is damaged")
    yield timeline.frames, frame


class _Converter:
    """A decoded frame -> upright RGB on white, uint8 (H, W, 3), with square pixels."""

    def __init__(self, facts: VideoFacts, size: tuple[int, int] | None) -> None:
        self._orientation = facts.orientation
        self._height, self._width = facts.orientation.size(*(size or facts.size))
        self._matrix = Colorspace.ITU709 if facts.is_hd_untagged else None
        self._reformatter = VideoReformatter()  # kept, because it is slow to set up

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        has_alpha = any(component.is_alpha for component in frame.format.components)
        converted = self._reformatter.reformat(
            frame,
            self._width,
            self._height,
            "rgba" if has_alpha or frame.format.has_palette else "rgb24",
            src_colorspace=self._matrix,
            interpolation=EXACT,
        )
        pixels: np.ndarray = converted.to_ndarray()
        return self._orientation.turn(on_white(pixels) if pixels.shape[2] == 4 else pixels)
