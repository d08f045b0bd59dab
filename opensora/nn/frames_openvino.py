"""Frames-first videos in an OpenVINO graph, in the layout of its 3-D convolutions."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from opensora.engine.graph import Index, Node, Operand, Operator, Output, constant, integers, marked, opset


class FramesNode(Node):
    """A video that models see as (T*B, C, H, W).

    The graph holds it as (B, C, T, H, W), until an operator needs the other layout.
    """

    def __init__(self, video: Output) -> None:
        self.video = marked(video)

    @property
    def batch(self) -> int:
        return int(self.video.get_shape()[0])

    @property
    def shape(self) -> tuple[int, ...]:
        batch, channels, frames, height, width = self.video.get_shape()
        return frames * batch, channels, height, width

    @property
    def dtype(self) -> Any:
        return self.video.get_element_type()

    @cached_property
    def output(self) -> Output:
        """As (T*B, C, H, W)."""
        o = opset()
        by_frame = o.transpose(self.video, integers([2, 0, 1, 3, 4]))
        return o.reshape(by_frame, integers(self.shape), False).output(0)

    def map_video(self, function: Callable[[Output], Operator]) -> "FramesNode":
        """The result of an operator on (B, C, T, H, W)."""
        return FramesNode(function(self.video).output(0))

    map = map_video

    def combine(
        self, function: Callable[[Output, Output], Operator], other: Operand, swapped: bool = False
    ) -> Node:
        if isinstance(other, FramesNode) and other.batch == self.batch:
            pair = self.video, other.video
        elif not isinstance(other, Node) or other.shape in ((), (1,)):
            pair = self.video, constant(other, self.dtype).output
        else:
            return super().combine(function, other, swapped)
        return FramesNode(function(*(reversed(pair) if swapped else pair)).output(0))

    def __getitem__(self, index: Index) -> Node:
        """Whole frames of all videos stay in the layout."""
        if isinstance(index, slice) and index.step in (None, 1):
            start, stop, _ = index.indices(self.shape[0])
            if start % self.batch == stop % self.batch == 0:
                return self.frames(slice(start // self.batch, stop // self.batch))
        return super().__getitem__(index)

    def frames(self, span: slice) -> "FramesNode":
        """These frames of every video."""
        whole = slice(None)
        return FramesNode(Node(self.video)[whole, whole, span].output)


def concat_frames(parts: Sequence[Node]) -> FramesNode | None:
    """The frames of the parts one after the other; None where they are not all frames of the same videos."""
    videos = [part for part in parts if isinstance(part, FramesNode)]
    if len(videos) < len(parts) or len({video.batch for video in videos}) > 1:
        return None
    return FramesNode(opset().concat([video.video for video in videos], 2).output(0))


def as_video(x: Node, batch: int) -> FramesNode:
    """Frames (T*B, C, H, W) in the layout of videos."""
    if isinstance(x, FramesNode) and x.batch == batch:
        return x
    o = opset()
    rows, *rest = x.shape
    by_frame = o.reshape(x.output, integers([rows // batch, batch, *rest]), False)
    return FramesNode(o.transpose(by_frame, integers([1, 2, 0, 3, 4])).output(0))
