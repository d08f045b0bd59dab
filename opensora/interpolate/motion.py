"""Motion-compensated interpolation by FFmpeg's filter `minterpolate`."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, repeat

import av
import numpy as np
from av.filter import Graph
from av.video.reformatter import VideoReformatter

from opensora.media.container import frame_time, pulled

NAME, SETTINGS = "minterpolate", "mi_mode=mci:me_mode=bidir:me=epzs:search_param=64:scd=none"
BLOCK = 16  # pixels of the side of a block whose motion is estimated
SMALLEST = 2 * BLOCK  # pixels of each side that the filter needs
BEFORE, AFTER = 1, 3  # copies of the first and last frame that the filter needs around a scene
PIXELS = "yuv444p"  # the filter takes no RGB


def motion_compensated(scene: Iterator[np.ndarray], factor: int) -> Iterator[list[np.ndarray]]:
    """A `Method`: averages of blocks of both neighbours, moved along the way on which they fit best."""
    first = next(scene, None)
    if first is None:
        return
    height, width = first.shape[:2]
    read = 0

    def frames() -> Iterator[np.ndarray]:
        nonlocal read
        last = first
        for last in chain([first], scene):
            yield from repeat(last, 1 if read else 1 + BEFORE)
            read += 1
        yield from repeat(last, AFTER)

    between: list[np.ndarray] = []
    reformatter = VideoReformatter()
    for found in _filtered(frames(), height, width, factor):
        place = round(frame_time(found) * factor) - BEFORE * factor
        if place % factor and 0 < place < (read - 1) * factor:
            pixels = reformatter.reformat(found, format="rgb24").to_ndarray()
            between.append(np.ascontiguousarray(pixels[:height, :width]))
        if len(between) == factor - 1:
            yield between
            between = []


def _filtered(frames: Iterator[np.ndarray], height: int, width: int, factor: int) -> Iterator[av.VideoFrame]:
    """The filter's frames at `factor` times the rate; those of the input come each second."""
    below, right = (max(size + -size % BLOCK, SMALLEST) - size for size in (height, width))
    graph, tick, reformatter = Graph(), Fraction(1), VideoReformatter()
    source = graph.add_buffer(
        width=width + right, height=height + below, format=av.VideoFormat(PIXELS), time_base=tick
    )
    filtering = graph.add(NAME, f"fps={factor}:{SETTINGS}")
    graph.link_nodes(source, filtering, graph.add("buffersink")).configure()
    for number, pixels in enumerate(frames):
        padded = np.pad(pixels, ((0, below), (0, right), (0, 0)), mode="edge")
        frame = reformatter.reformat(av.VideoFrame.from_ndarray(padded, format="rgb24"), format=PIXELS)
        frame.pts, frame.time_base = number, tick
        graph.vpush(frame)
        yield from pulled(graph)
    graph.vpush(None)
    yield from pulled(graph)
