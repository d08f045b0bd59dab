"""TensorBoard events of a run: numbers, pictures, and videos as animations."""

import io
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from PIL import Image
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import scalar

from opensora.files import naming
from opensora.media.reader import iter_frames, probe

LONGEST_SIDE, MOST_FRAMES = 256, 64
"""Videos are shown no larger and with no more frames than these: TensorBoard has them as GIF."""


class Board:
    """Events, each written before the method returns.

    The package's SummaryWriter uses a thread: a full disk ends it silently, and the run waits for it forever.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        """Hides events of earlier processes from `first_step` on."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        with naming(folder):
            self._file = EventsWriter(str(folder / "events"))
        self._write(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers of a step."""
        summaries = [scalar(name, value) for name, value in values.items()]
        self._write(*(Event(wall_time=time.time(), step=step, summary=summary) for summary in summaries))

    def show(self, step: int, name: str, path: Path) -> None:
        """Show a picture or video of a step."""
        content, height, width = _as_gif(path) if path.suffix == ".mp4" else _as_it_is(path)
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=content)
        summary = Summary(value=[Summary.Value(tag=name, image=image)])
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def _write(self, *events: Event) -> None:
        with naming(self._folder):
            for event in events:
                self._file.write_event(event)
            self._file.flush()

    def close(self) -> None:
        with naming(self._folder):
            self._file.close()


def _as_it_is(path: Path) -> tuple[bytes, int, int]:
    """(content, height, width) of a picture."""
    info = probe(path)
    return path.read_bytes(), info.height, info.width


def _as_gif(path: Path) -> tuple[bytes, int, int]:
    """(GIF, height, width) of a video."""
    info = probe(path)
    interval = -(-info.frames // MOST_FRAMES)
    scale = min(1.0, LONGEST_SIDE / max(info.height, info.width))
    height, width = (max(1, round(side * scale)) for side in (info.height, info.width))
    frames = islice(iter_frames(path, interval, size=(height, width)), MOST_FRAMES)
    pictures = [Image.fromarray(frame).quantize(256) for frame in frames]
    content = io.BytesIO()
    delay = round(1000 * interval / info.fps)
    pictures[0].save(
        content, "GIF", save_all=True, append_images=pictures[1:], duration=delay, loop=0, disposal=1
    )
    return content.getvalue(), height, width
