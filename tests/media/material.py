"""Videos for tests, written with PyAV: every frame shows its number as black and white blocks."""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BITS, COLUMNS = 10, 5
MILLISECOND = Fraction(1, 1000)
FAST_VP9 = {"deadline": "realtime", "cpu-used": "8"}


def numbered(number: int, height: int = 64, width: int = 96) -> np.ndarray:
    """uint8 (H, W, 3): the bits of `number` in two rows of five blocks, the lowest at the top left."""
    frame = np.zeros((height, width, 3), np.uint8)
    for bit in range(BITS):
        row, column = divmod(bit, COLUMNS)
        if number >> bit & 1:
            rows = slice(row * height // 2, (row + 1) * height // 2)
            frame[rows, column * width // COLUMNS : (column + 1) * width // COLUMNS] = 255
    return frame


def number_of(frame: np.ndarray) -> int:
    height, width = frame.shape[:2]
    places = (divmod(bit, COLUMNS) for bit in range(BITS))
    levels = (frame[(2 * row + 1) * height // 4, (2 * column + 1) * width // 10] for row, column in places)
    return sum(1 << bit for bit, level in enumerate(levels) if level.mean() > 127)


def numbers(frames: Iterable[np.ndarray]) -> list[int]:
    return [number_of(frame) for frame in frames]


def write(
    path: Path | str,
    frames: int | Iterable[np.ndarray] = 120,
    codec: str = "libx264",
    rate: Fraction | int = 25,
    times: Sequence[int] | None = None,
    tick: Fraction = MILLISECOND,
    size: tuple[int, int] = (64, 96),
    pixels: str = "yuv420p",
    container: str | None = None,
    options: dict[str, str] | None = None,
    prepare: Callable[[Any], None] = lambda stream: None,
    convert: Callable[[av.VideoFrame], av.VideoFrame] = lambda frame: frame,
) -> Path:
    """Encode numbered frames, or these, at a constant rate or at `times`, counted in ticks."""
    given = (numbered(number, *size) for number in range(frames)) if isinstance(frames, int) else frames
    with av.open(str(path), "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        if times is not None:
            stream.codec_context.time_base = tick
        prepare(stream)
        for number, array in enumerate(given):
            frame = av.VideoFrame.from_ndarray(array, format="rgba" if array.shape[2] == 4 else "rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], tick
            output.mux(stream.encode(convert(frame)))
        output.mux(stream.encode())
    return Path(path)


def b_frames(count: int, gop: int) -> Callable[[Any], None]:
    """The settings of a stream with reordered frames."""

    def prepare(stream: Any) -> None:
        stream.codec_context.max_b_frames, stream.codec_context.gop_size = count, gop

    return prepare


def copy_packets(
    source: Path, target: Path | str, begin: Fraction, options: dict[str, str] | None = None
) -> Path:
    """Cut without decoding, as `-ss begin -c copy` does: the file begins at the key frame before `begin`."""
    with av.open(str(source)) as before, av.open(str(target), "w", options=options or {}) as after:
        old: Any = before.streams.video[0]
        new = after.add_stream_from_template(old)
        ticks = int(begin / old.time_base)
        before.seek(ticks, stream=old)
        for packet in before.demux(old):
            if packet.dts is not None and packet.pts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - ticks, packet.dts - ticks, new
                after.mux(packet)
    return Path(target)
