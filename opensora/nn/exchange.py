"""What a model asks for when the frames of a video may lie on several devices. `parallel/sequence.py` has the other answer."""

from typing import Any

from opensora.nn.block import Block


class Alone:
    """All frames are here."""

    def total(self, frames: int) -> int:
        """Frames of the whole video, of which this device holds `frames`."""
        return frames

    def own(self, table: Any) -> Any:
        """This device's rows of a table with a row for each frame of the whole video."""
        return table

    def over_time(self, block: Block) -> Block:
        """A block that joins frames, for tokens (B, frames of this device and its images, S, D); its other inputs know the whole video."""
        return block
