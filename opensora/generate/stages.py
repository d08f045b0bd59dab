"""The stages of generation: encode prompts, denoise latents, decode and save videos.

Each stage takes batches of videos and leaves its results in a store for the next one.
"""

import logging
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from opensora.console import Progress
from opensora.diffusion import make_sampler
from opensora.files import write_json
from opensora.generate.enhance import Enhancement
from opensora.generate.latents import latents_content, read_latents, write_latents
from opensora.generate.options import GenerateJob
from opensora.generate.plan import PlannedVideo
from opensora.generate.sidecar import sidecar_content
from opensora.media.sheets import video_sheet
from opensora.media.writer import write_result, write_video
from opensora.pipeline.core import Pipeline

log = logging.getLogger(__name__)

TEXTS_AT_ONCE = 64  # a streamed text encoder reads its weights once for all of them

K = TypeVar("K")
Batches = Sequence[Sequence[PlannedVideo]]
StageArrays = tuple[np.ndarray, ...]


class Stages:
    """The stages of one run. folder: for what lies between them; in memory if None."""

    def __init__(
        self, job: GenerateJob, pipe: Pipeline, videos: Sequence[PlannedVideo], folder: Path | None
    ) -> None:
        self.job, self.pipe = job, pipe
        self.enhance = Enhancement(job.options, pipe.engine)
        self.index = {video.path: index for index, video in enumerate(videos)}
        self.texts: MutableMapping[str, StageArrays] = {} if folder is None else StageStore(folder / "texts")
        self.latents: MutableMapping[Path, StageArrays] = (
            {} if folder is None else StageStore(folder / "latents")
        )

    def encode(self, batches: Batches) -> None:
        """Embed the prompts and the negative prompt: embeddings (1, L, D) and mask (1, L) each."""
        prompts = [video.prompt for batch in batches for video in batch]
        wanted = dict.fromkeys([self.job.options.negative_prompt, *prompts])
        for text in set(self.texts) - set(wanted):
            del self.texts[text]
        missing = [text for text in wanted if text not in self.texts]
        for start in range(0, len(missing), TEXTS_AT_ONCE):
            texts = missing[start : start + TEXTS_AT_ONCE]
            embeds, masks = self.pipe.encode(texts)  # (B, L, D), (B, L)
            for i, text in enumerate(texts):
                self.texts[text] = embeds[i : i + 1], masks[i : i + 1]

    def denoise(self, batches: Batches) -> None:
        """Sample the latents (C, T, h, w) of each video, from noise drawn with its seed."""
        negative_embeds, negative_mask = self.texts[self.job.options.negative_prompt]
        for batch in batches:
            texts = [self.texts[video.prompt] for video in batch]
            embeds, mask = (np.concatenate(arrays) for arrays in zip(*texts, strict=True))
            latents = self.pipe.sample(
                self.job.sampling,
                (embeds, mask),
                (negative_embeds, negative_mask),
                seeds=[video.seed for video in batch],
                upstream=self.job.options.upstream,
                after_step=self._progress(batch),
            )  # (B, C, T, h, w)
            for video, value in zip(batch, latents, strict=True):
                self.latents[video.path] = (value,)

    def decode(self, batches: Batches) -> None:
        """Decode and save. The sidecar is written first and the video last: an existing video is complete."""
        for video, latents in self._take_latents(batches):
            if not (self._is_own(video) or self.pipe.share_decoding):
                continue
            frames = self.pipe.decode(latents[None]).asnumpy()[0]  # uint8 (F, H, W, 3)
            frames = frames[: video.recipe["num_frames"]]
            if self._is_own(video):
                frames, fps = self.enhance(frames, video.recipe["fps"])
                self._write_sidecar(video)
                if self.job.options.contact_sheet:
                    write_video(video.sheet, video_sheet(frames)[None])
                write_result(video.path, frames, fps)
                log.info("%s", video.path)

    def save_latents(self, batches: Batches) -> None:
        """Save latents instead of videos."""
        for video, latents in self._take_latents(batches):
            if self._is_own(video):
                content, digest = latents_content(latents)
                self._write_sidecar(video, sha256=digest)
                write_latents(video.path, content)
                log.info("%s", video.path)

    def read_latents(self, batches: Batches) -> None:
        """Read latents that an earlier run saved."""
        for batch in batches:
            for video in batch:
                self.latents[video.path] = (saved_latents(self.job, video),)

    def _take_latents(self, batches: Batches) -> Iterator[tuple[PlannedVideo, np.ndarray]]:
        for video in (video for batch in batches for video in batch):
            (latents,) = self.latents.pop(video.path)
            yield video, latents

    def _is_own(self, video: PlannedVideo) -> bool:
        """True if this process finishes the video: the processes of a team take turns."""
        team = self.pipe.mesh.team
        return self.index[video.path] % team.size == team.index

    def _write_sidecar(self, video: PlannedVideo, **more: str) -> None:
        content = sidecar_content(self.job, video.recipe, video.path.name, self.pipe.engine.name)
        write_json(video.sidecar, {**content, **more})

    def _progress(self, batch: Sequence[PlannedVideo]) -> Callable[[object], None]:
        sampling = self.job.sampling
        sampler = make_sampler(sampling.sample_method, sampling.num_sampling_steps, self.job.options.upstream)
        first = self.index[batch[0].path] + 1
        span = f"{first}" if len(batch) == 1 else f"{first}-{first + len(batch) - 1}"
        return Progress(f"video {span} of {len(self.index)}", len(sampler.timesteps)).step


def saved_latents(job: GenerateJob, video: PlannedVideo) -> np.ndarray:
    """The latents (C, T, h, w) that an earlier run saved. Raises ValueError, see `read_latents`."""
    size = video.recipe["num_frames"], video.recipe["height"], video.recipe["width"]
    return read_latents(video.latents, job.spec.latent_shape(size, bool(video.recipe.get("upstream"))))


class StageStore(MutableMapping[K, StageArrays]):
    """A dict of arrays in files of `folder`, one per key."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._files: dict[K, Path] = {}
        self._written = 0

    def __setitem__(self, key: K, arrays: StageArrays) -> None:
        self._written += 1
        file = self._folder / f"{self._written}.npz"
        np.savez(file, *arrays)
        self._files[key] = file

    def __getitem__(self, key: K) -> StageArrays:
        with np.load(self._files[key]) as arrays:
            return tuple(arrays.values())

    def __delitem__(self, key: K) -> None:
        self._files.pop(key).unlink()

    def __iter__(self) -> Iterator[K]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)
