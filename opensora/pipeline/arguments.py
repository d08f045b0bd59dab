"""The arguments of a call of `Pipeline`, checked before anything is computed.

A value of another type is a TypeError, one that this model cannot take a ValueError; both name the argument.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np

from opensora.config_files import ranges
from opensora.diffusion import Sampler
from opensora.diffusion.guidance import is_guided
from opensora.diffusion.schedule import TRAIN_STEPS
from opensora.models.spec import ModelSpec
from opensora.nn import Tensor
from opensora.pipeline.settings import Sampling, complete_sampling
from opensora.pipeline.values import boolean, kind, number, numbers, texts, whole
from opensora.weights.folder import did_you_mean

if TYPE_CHECKING:
    from opensora.pipeline.call import Callback

MOST_VIDEOS = 2**16
OTHER_NAMES = {
    "num_inference_steps": "steps",
    "num_sampling_steps": "steps",
    "generator": "seed",
    "num_images_per_prompt": "num_videos_per_prompt",
    "sample_method": "sampler",
    "scheduler": "sampler",
    "cfg_scale": "guidance_scale",
    "callback_on_step_end": "callback",
    "after_step": "callback",
    "prompt_attention_mask": "prompt_mask",
    "negative_prompt_embeds": "negative_embeds",
    "negative_prompt_attention_mask": "negative_mask",
    "video_length": "num_frames",
}
"""Our arguments by their names in other libraries."""
OTHER_WAYS = {
    "output_type": "a Video has .frames, an array, and .to_pil()",
    "return_dict": "a call returns a Video, or a list of them",
}
Text = tuple[np.ndarray, np.ndarray]
"""Embeddings (B, L, D) and masks (B, L), 1 for tokens, both float32."""


ArrayLike = Tensor | np.ndarray


class CallOptions(TypedDict, total=False):
    """The keyword arguments of `Pipeline.__call__` beside the number of videos, for type checkers."""

    negative_prompt: str | Sequence[str]
    seed: int | Sequence[int] | None
    batch_size: int
    steps: int | None
    guidance_scale: float | None
    sampler: str | Sampler | None
    num_frames: int | None
    height: int | None
    width: int | None
    fps: int | None
    upstream: bool
    prompt_embeds: ArrayLike | None
    prompt_mask: ArrayLike | None
    negative_embeds: ArrayLike | None
    negative_mask: ArrayLike | None
    latents: ArrayLike | None
    memory: int | None
    progress: bool
    callback: "Callback | None"


class Inputs(NamedTuple):
    """Arguments that are given as arrays or objects in place of text, settings and noise; None if absent."""

    text: Text | None
    negative: Text | None
    latents: np.ndarray | None
    sampler: Sampler | None


@dataclass(frozen=True)
class Request:
    """A checked call: `n` videos, prompt after prompt."""

    prompts: list[str]
    """One for each video; empty for given embeddings."""
    negatives: list[str]
    seeds: list[int]
    batch_size: int
    sampling: Sampling
    """The settings with the seed of the first video."""
    inputs: Inputs
    single: bool
    """A call with one prompt, which returns a `Video` and no list."""
    upstream: bool

    @property
    def batches(self) -> list[slice]:
        return [
            slice(start, min(start + self.batch_size, len(self.seeds)))
            for start in range(0, len(self.seeds), self.batch_size)
        ]


def read_request(
    spec: ModelSpec,
    *,
    prompt: Any,
    negative_prompt: Any,
    num_videos_per_prompt: Any,
    seed: Any,
    batch_size: Any,
    settings: dict[str, Any],
    sampler: Any,
    upstream: Any,
    prompt_embeds: Any,
    prompt_mask: Any,
    negative_embeds: Any,
    negative_mask: Any,
    latents: Any,
) -> Request:
    """A call of `Pipeline`. settings: steps, guidance_scale, num_frames, height, width and fps.

    Raises TypeError and ValueError.
    """
    sampling = _sampling(spec, settings, sampler)
    each = whole("num_videos_per_prompt", num_videos_per_prompt, 1, MOST_VIDEOS)
    text = _text(spec, "prompt", prompt_embeds, prompt_mask)
    negative = _text(spec, "negative", negative_embeds, negative_mask)
    prompts, single = _prompts(prompt, text)
    count = each * (len(prompts) if text is None else len(text[0]))
    if count > MOST_VIDEOS:
        raise ValueError(f"prompt: a call makes at most {MOST_VIDEOS} videos, these would be {count}")
    negatives = _repeated("negative_prompt", negative_prompt, count // each)
    seeds = _seeds(seed, sampling.seed, count)
    if text is not None:
        text = np.repeat(text[0], each, axis=0), np.repeat(text[1], each, axis=0)
    if is_guided(sampling.guidance_scale):
        negative = _negative_rows(spec, negative, text, count, each)
    noise = _latents(latents, (count, *spec.latent_shape(sampling.size, boolean("upstream", upstream))))
    return Request(
        prompts=[text for text in prompts for _ in range(each)],
        negatives=[text for text in negatives for _ in range(each)],
        seeds=seeds,
        batch_size=whole("batch_size", batch_size, 1, MOST_VIDEOS),
        sampling=sampling,
        inputs=Inputs(text, negative, noise, sampler if _is_sampler(sampler) else None),
        single=single and each == 1,
        upstream=upstream,
    )


def refuse(unknown: dict[str, Any], known: Sequence[str]) -> None:
    """Raise TypeError for arguments that a call does not have, which names ours where it is known."""
    for name in unknown:
        if name in OTHER_NAMES:
            raise TypeError(f"argument {name!r} is called {OTHER_NAMES[name]!r} here")
        if name in OTHER_WAYS:
            raise TypeError(f"there is no argument {name!r} here: {OTHER_WAYS[name]}")
        raise TypeError(f"argument {name!r} is unknown{did_you_mean(name, known)}: see help(Pipeline)")


def _sampling(spec: ModelSpec, settings: dict[str, Any], sampler: Any) -> Sampling:
    limits = ranges(Sampling)
    fields = {"steps": "num_sampling_steps"}
    given: dict[str, Any] = {}
    for name, value in settings.items():
        field = fields.get(name, name)
        if value is None:
            continue
        check = number if name == "guidance_scale" else whole
        given[field] = check(name, value, limits[field].low, limits[field].high)  # type: ignore[arg-type]
    if _is_sampler(sampler):
        steps = len(_timesteps(sampler))
        chosen = complete_sampling(spec, **{**given, "num_sampling_steps": min(steps, TRAIN_STEPS)})
        return replace(chosen, num_sampling_steps=steps, sample_method=type(sampler).__name__)
    if sampler is not None and not isinstance(sampler, str):
        raise TypeError(
            f"sampler must be a name, or an object with all that Sampler has, not {kind(sampler)}"
        )
    return complete_sampling(spec, **given, sample_method=sampler)


def _is_sampler(sampler: Any) -> bool:
    """True for an object with all that sampling uses of a `Sampler`."""
    names = ("timesteps", "init_noise_sigma", "scale_model_input", "needs_noise", "step")
    return not isinstance(sampler, type) and all(hasattr(sampler, name) for name in names)


def _timesteps(sampler: Any) -> np.ndarray:
    timesteps = np.asarray(sampler.timesteps)
    if timesteps.ndim != 1 or not len(timesteps) or timesteps.dtype.kind not in "fiu":
        raise ValueError("sampler.timesteps must be an array of at least one number")
    return timesteps


def _prompts(prompt: Any, text: Text | None) -> tuple[list[str], bool]:
    """The prompts, and if there is one that is not in a list."""
    if text is not None:
        if prompt is not None:
            raise ValueError("prompt and prompt_embeds exclude each other: give one of them")
        return [], len(text[0]) == 1
    if prompt is None:
        raise TypeError("prompt is missing: give a text, a list of texts, or prompt_embeds")
    return texts("prompt", prompt), isinstance(prompt, str)


def _repeated(name: str, value: Any, count: int) -> list[str]:
    """One text for each prompt."""
    found = texts(name, value)
    if isinstance(value, str):
        return found * count
    if len(found) != count:
        raise ValueError(f"{name} has {len(found)} texts for {count} prompts: give one text, or one for each")
    return found


def _seeds(seed: Any, default: int, count: int) -> list[int]:
    """One for each video: video n of a call has seed + n, or the n-th of a list."""
    limits = ranges(Sampling)["seed"]
    low, high = int(limits.low), int(limits.high)
    if not isinstance(seed, list | tuple | np.ndarray | range):
        first = default if seed is None else whole("seed", seed, low, high)
        return [whole("seed", first + place, low, high) for place in range(count)]
    if len(seed) != count:
        raise ValueError(f"seed has {len(seed)} numbers for {count} videos: give one number, or one for each")
    return [whole(f"seed[{place}]", item, low, high) for place, item in enumerate(seed)]


def _text(spec: ModelSpec, kind: str, embeds: Any, mask: Any) -> Text | None:
    """Embeddings that were given, with their mask. kind: "prompt" or "negative"."""
    if embeds is None:
        if mask is not None:
            raise ValueError(f"{kind}_mask needs {kind}_embeds: give both, or the text")
        return None
    array, channels = numbers(f"{kind}_embeds", embeds, "B L D"), spec.transformer.caption_channels
    if array.shape[2] != channels:
        raise ValueError(
            f"{kind}_embeds have {array.shape[2]} channels, this model takes {channels}: "
            "use the text encoder that it was trained with"
        )
    if mask is None:
        return array, np.ones(array.shape[:2], np.float32)
    kept = numbers(f"{kind}_mask", mask, "B L")
    if kept.shape != array.shape[:2]:
        raise ValueError(f"{kind}_mask has the shape {kept.shape}, its embeddings {array.shape}")
    return array, kept


def _negative_rows(
    spec: ModelSpec, negative: Text | None, text: Text | None, count: int, each: int
) -> Text | None:
    """Negative embeddings with a row for each video; None if they are to be made from text."""
    length = spec.text_length if text is None else text[0].shape[1]
    if negative is None:
        if text is not None and spec.text_encoder is None:
            raise ValueError(
                "negative_embeds are missing in a pipeline without text encoder: pass those of an empty "
                "prompt, or guidance_scale=1"
            )
        if length != spec.text_length:
            raise ValueError(
                f"prompt_embeds have {length} tokens and the negative prompt {spec.text_length}: "
                "pad them to one length, or pass negative_embeds"
            )
        return None
    embeds, mask = negative
    if len(embeds) not in (1, count // each):
        raise ValueError(
            f"negative_embeds have {len(embeds)} rows for {count // each} prompts: give one, or one for each"
        )
    if embeds.shape[1] != length:
        raise ValueError(
            f"negative_embeds have {embeds.shape[1]} tokens and the prompts {length}: pad them to one length"
        )
    times = count if len(embeds) == 1 else each
    return np.repeat(embeds, times, axis=0), np.repeat(mask, times, axis=0)


def _latents(latents: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """The noise to start from, (n, C, T, h, w)."""
    if latents is None:
        return None
    array = numbers("latents", latents, "B C T h w")
    if array.shape[0] == 1:
        array = np.repeat(array, shape[0], axis=0)
    if array.shape != shape:
        raise ValueError(f"latents have the shape {array.shape}, but this call needs {shape}")
    return array
