"""`Video`: frames with their rate, and what they were made from."""

import base64
import html
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from opensora.console import printable, shortened
from opensora.files import read_sidecar, write_json
from opensora.media.errors import writing
from opensora.media.reader import probe, read_result, read_video
from opensora.media.writer import check_frames, write_result, write_video
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.models.spec import ModelSpec
from opensora.pipeline import recipe as recipes
from opensora.pipeline.values import number

INLINE_BYTES = 1_400_000  # a notebook keeps the file as text, which is 4/3 as long
METADATA_ONLY = ("model", "inputs")


@dataclass(frozen=True)
class Origin:
    """The model that made a video, for its sidecar."""

    spec: ModelSpec
    pretrained_ckpt: str | Path | None
    policy: VAEPolicy
    engine: str
    """The engine that computed it, in case the planned one failed."""


@dataclass(frozen=True, eq=False, repr=False)
class Video:
    """A generated video: frames uint8 (T, H, W, 3), frames per second, and what it was made from."""

    frames: np.ndarray
    fps: float
    metadata: dict[str, Any] = field(default_factory=dict)
    origin: Origin | None = None

    def __post_init__(self) -> None:
        check_frames(self.frames)
        number("fps", self.fps, 1e-6, 1e9)

    @classmethod
    def read(cls, path: str | Path) -> "Video":
        """A video from a file, or from a folder of pictures; its metadata are the recipe in the sidecar.

        Raises ValueError for a file that cannot be read.
        """
        path = Path(path)
        recipe = read_sidecar(path.with_suffix(".json")).get("recipe")
        metadata = recipe if isinstance(recipe, dict) else {}
        if not path.is_dir():
            return cls(read_video(path), probe(path).fps, metadata)
        fps = metadata.get("fps")
        return cls(read_result(path), fps if isinstance(fps, int | float) else 24, metadata)

    def __repr__(self) -> str:
        count, height, width = self.frames.shape[:3]
        size = f"{count} frame{'s' if count > 1 else ''} of {height}x{width}"
        facts = [size if count == 1 else f"{size} at {self.fps:g} fps"]
        if self.metadata.get("prompt"):
            facts.append(repr(shortened(printable(self.metadata["prompt"]), 60)))
        if "seed" in self.metadata:
            facts.append(f"seed {self.metadata['seed']}")
        return f"Video({', '.join(facts)})"

    def _repr_html_(self) -> str:
        """The video as Jupyter shows it: it plays in the page, smaller if it would take more than 2 MB."""
        title = html.escape(repr(self), quote=True)
        height, width = self.frames.shape[1:3]
        kind, content = ("image/png", ".png") if len(self.frames) == 1 else ("video/mp4", ".mp4")
        data = base64.b64encode(self._inline(content)).decode("ascii")
        shape = f'width="{width}" height="{height}" title="{title}"'
        if kind == "image/png":
            return f'<img {shape} src="data:{kind};base64,{data}">'
        return f'<video {shape} controls loop autoplay muted src="data:{kind};base64,{data}"></video>'

    def save(self, path: str | Path, *, sidecar: bool = False) -> None:
        """Write a file by the ending of `path`: .mp4, .webm, .mov, .mkv, .gif or .webp, .png of one frame.

        A path without an ending becomes a folder with a .png for each frame. sidecar: also write
        `<name>.json`, as the command line does, with what the video was made from and the command that
        makes it again. Raises ValueError for a path that cannot be written.
        """
        path = Path(path)
        content = self._sidecar(path.name) if sidecar else None
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            write_json(path.with_suffix(".json"), content)
        write_result(path, self.frames, self.fps)

    def to_pil(self) -> list[Image.Image]:
        """The frames as Pillow images."""
        return [Image.fromarray(frame) for frame in self.frames]

    def _sidecar(self, file: str) -> dict[str, Any]:
        if self.origin is None:
            raise ValueError("this video was not made by a pipeline: save it without sidecar=True")
        origin, paths = self.origin, self.origin.spec.paths
        settings = {name: value for name, value in self.metadata.items() if name not in METADATA_ONLY}
        weights = recipes.hash_model(paths, origin.pretrained_ckpt)
        recipe = recipes.latents_recipe(settings, weights)
        recipe = recipes.video_recipe(recipe, origin.spec.vae, origin.policy, weights)
        if self.metadata.get("inputs"):  # arrays or a sampler that the command line cannot name
            recipe, command = {**recipe, "inputs": self.metadata["inputs"]}, None
        else:
            switches = ["force_images"] if len(self.frames) == 1 else []
            command = recipes.repeat_command(recipe, paths, origin.pretrained_ckpt, switches)
        return recipes.sidecar_content(recipe, file, origin.engine, paths, origin.pretrained_ckpt, command)

    def _inline(self, suffix: str) -> bytes:
        """The bytes of a file of at most INLINE_BYTES."""
        frames = self.frames
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"inline{suffix}"
            while True:
                write_video(path, frames, self.fps)
                if path.stat().st_size <= INLINE_BYTES:
                    return path.read_bytes()
                frames = _halved(frames)


def _halved(frames: np.ndarray) -> np.ndarray:
    """Frames of half the height and width; of those that cannot become smaller, every other one."""
    height, width = frames.shape[1] // 2, frames.shape[2] // 2
    if min(height, width) < 16:
        return frames[::2]
    smaller = (Image.fromarray(frame).resize((width, height), Image.Resampling.BOX) for frame in frames)
    return np.stack([np.asarray(frame) for frame in smaller])
