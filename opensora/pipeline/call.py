"""One call of a pipeline: its texts, batch after batch of latents, and their frames."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from opensora.console import Progress
from opensora.diffusion import make_sampler
from opensora.diffusion.guidance import is_guided
from opensora.pipeline.arguments import Request, Text
from opensora.pipeline.recipe import sampled
from opensora.pipeline.video import Origin, Video

if TYPE_CHECKING:
    from opensora.pipeline.core import Pipeline

Preview = Callable[[], np.ndarray]
"""Decodes the latents of a step: uint8 (B, F, H, W, 3)."""
Callback = Callable[[int, int, np.ndarray, Preview], Any]
"""`callback(step, total, latents, preview)` after each step, counted from 1; latents are (B, C, T, h, w)."""


class Cancelled(Exception):
    """A call was ended by `Pipeline.cancel`."""

    def __init__(self, latents: np.ndarray | None) -> None:
        """latents: (B, C, T, h, w) of the videos that were denoised, the last ones in part; or None."""
        super().__init__("the call was cancelled")
        self.latents = latents


@dataclass(eq=False)
class Call:
    """A call that waits for its turn, or is under way."""

    pipe: "Pipeline"
    request: Request
    progress: bool = False
    callback: Callback | None = None
    cancelled: bool = False
    latents: list[np.ndarray] = field(default_factory=list)
    """The latents of the batches that were begun, (B, C, T, h, w) each."""

    def check(self) -> None:
        """Raise Cancelled if the call is to end."""
        if self.cancelled:
            raise Cancelled(np.concatenate(self.latents) if self.latents else None)

    def run(self) -> list[Video]:
        """The videos, prompt after prompt."""
        pipe, request = self.pipe, self.request
        text, negative = self._texts()
        pipe.release(pipe.text)
        for number, rows in enumerate(request.batches):
            self.check()
            self.latents[number:] = [self._denoise(number, rows, text, negative)]
        pipe.release(pipe.transformer)
        videos = []
        for n, value in enumerate(latents for batch in self.latents for latents in batch):
            self.check()
            frames = pipe.decode(value[None]).asnumpy()[0, : request.sampling.num_frames]
            videos.append(Video(frames, request.sampling.fps, self._metadata(n), self._origin()))
        self.check()
        pipe.release(pipe.vae)
        return videos

    def _texts(self) -> tuple[Text, Text | None]:
        """Embeddings and masks with a row for each video. Equal texts are encoded once."""
        request = self.request
        text, negative = request.inputs.text, request.inputs.negative
        guided = is_guided(request.sampling.guidance_scale)
        negatives = request.negatives if guided and negative is None else []
        missing = list(dict.fromkeys([*negatives, *(request.prompts if text is None else [])]))
        embeds, masks = self.pipe.encode(missing) if missing else (np.empty(0), np.empty(0))
        place = {item: row for row, item in enumerate(missing)}
        if negatives:
            rows = [place[item] for item in negatives]
            negative = embeds[rows], masks[rows]
        if text is None:
            rows = [place[item] for item in request.prompts]
            text = embeds[rows], masks[rows]
        return text, negative

    def _denoise(self, number: int, rows: slice, text: Text, negative: Text | None) -> np.ndarray:
        """Latents (B, C, T, h, w) of a batch of videos."""
        request, inputs = self.request, self.request.inputs
        return self.pipe.sample(
            request.sampling,
            (text[0][rows], text[1][rows]),
            None if negative is None else (negative[0][rows], negative[1][rows]),
            request.seeds[rows],
            request.upstream,
            self._observer(number, rows),
            noise=None if inputs.latents is None else inputs.latents[rows],
            sampler=inputs.sampler,
        )

    def _observer(self, number: int, rows: slice) -> Callable[[np.ndarray], None]:
        """The function that is called after each step of batch `number`."""
        request = self.request
        sampling = request.sampling
        sampler = request.inputs.sampler or make_sampler(
            sampling.sample_method, sampling.num_sampling_steps, request.upstream
        )
        steps = len(sampler.timesteps)
        numbers = count(1 + number * steps)
        bar = Progress(_label(rows, len(request.seeds)), steps) if self.progress else None

        def observe(latents: np.ndarray) -> None:
            step = next(numbers)
            self.latents[number:] = [latents]
            if bar is not None:
                bar.step()
            if self.callback is not None:
                shown = latents.copy()  # which the function may change
                self.callback(step, steps * len(request.batches), shown, lambda: self._preview(latents))
            self.check()

        return observe

    def _preview(self, latents: np.ndarray) -> np.ndarray:
        frames = self.pipe.decode(latents).asnumpy()
        self.pipe.release(self.pipe.vae)
        return np.asarray(frames[:, : self.request.sampling.num_frames])

    def _metadata(self, n: int) -> dict[str, Any]:
        request, pipe = self.request, self.pipe
        settings = sampled(
            replace(request.sampling, seed=request.seeds[n]),
            request.prompts[n] if request.prompts else "",
            request.negatives[n],
            upstream=request.upstream,
            engine=pipe.engine.name,
            precision=pipe.engine.precision,
            weights_dtype=pipe.weights_dtype,
        )
        metadata = {**settings, "model": str(pipe.spec.paths.transformer)}
        inputs = self._inputs(n)
        return {**metadata, "inputs": inputs} if inputs else metadata

    def _inputs(self, n: int) -> dict[str, str]:
        """The inputs that were arrays, as digests, and the class of a sampler of the user's own."""
        inputs, found = self.request.inputs, {}
        arrays = {"latents": inputs.latents}
        for name, text in (("prompt", inputs.text), ("negative", inputs.negative)):
            if text is not None:
                arrays |= {f"{name}_embeds": text[0], f"{name}_mask": text[1]}
        for name, array in arrays.items():
            if array is not None:
                found[name] = sha256(array[n].tobytes()).hexdigest()
        if inputs.sampler is not None:
            found["sampler"] = f"{type(inputs.sampler).__module__}.{type(inputs.sampler).__qualname__}"
        return found

    def _origin(self) -> Origin:
        pipe = self.pipe
        return Origin(pipe.spec, pipe.pretrained_ckpt, pipe.vae_policy, pipe.engine.name)


def _label(rows: slice, videos: int) -> str:
    span = f"{rows.start + 1}" if rows.stop - rows.start == 1 else f"{rows.start + 1}-{rows.stop}"
    return f"video {span} of {videos}"
