"""`Pipeline`: the three models of a folder as one object, loaded together or one after the other."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from opensora.console import shortened
from opensora.data.text import clean_caption
from opensora.data.text.tokenizer import Tokenizer
from opensora.diffusion import make_sampler
from opensora.diffusion.guidance import is_guided
from opensora.engine import choose_engine, open_engine
from opensora.engine.block import as_array
from opensora.media.writer import write_video
from opensora.models import CausalVAE, LatteT2V, T5Encoder
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.models.spec import ModelSpec
from opensora.models.t5.model import T5Config
from opensora.nn import Tensor
from opensora.parallel.mesh import Mesh
from opensora.parallel.sequence import ShardedWorkSharing
from opensora.pipeline.sampling import draw, sample, upstream_text
from opensora.pipeline.settings import Sampling, complete_sampling
from opensora.pipeline.stages import Denoiser, decode_frames, encode_text
from opensora.runtime import free_memory, on_cpu
from opensora.weights import WeightsError, load_config, trained_text_encoder

log = logging.getLogger(__name__)

BESIDE_THE_MODEL = "<model_path>/text_encoder"
ArrayLike = Tensor | np.ndarray
AfterStep = Callable[[np.ndarray], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Video:
    """A generated video: frames uint8 (T, H, W, 3), frames per second, and what it was made from."""

    frames: np.ndarray
    fps: float
    metadata: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write an mp4, gif or webp, or a png of a single frame, by the ending of `path`.

        Raises ValueError for a path that cannot be written.
        """
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_video(path, self.frames, self.fps)


class LazyModel(Generic[T]):
    """A model that is loaded when it is first needed and can be let go again."""

    def __init__(self, load: Callable[[], T]) -> None:
        self._load = load
        self._value: T | None = None

    def get(self) -> T:
        if self._value is None:
            self._value = self._load()
        return self._value

    def release(self) -> None:
        self._value = None


class Pipeline:
    """Prompts to videos with the models of one folder.

    pipe = Pipeline.from_pretrained("demo")
    pipe("an elephant on a sky blue background", seed=0).save("elephant.mp4")
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        pretrained_ckpt: str | Path | None = None,
        engine: str = "auto",
        precision: str = "fp32",
        weights_dtype: str = "fp32",
        resident: bool = True,
        vae_policy: VAEPolicy | None = None,
        mesh: Mesh | None = None,
        share_decoding: bool = False,
        transformer: LatteT2V | None = None,
        text_encoder: T5Encoder | None = None,
    ) -> None:
        """Configure a pipeline; nothing is loaded yet.

        pretrained_ckpt: weights for the transformer instead of the folder's; if a run trained the text
            encoder with it, for the text encoder too.
        engine: what computes, one of ENGINE_CHOICES; "auto" is OpenVINO on a CPU, with MindSpore in reserve.
        precision: "fp32", or "bf16" or "fp16" where the device has it. With MindSpore it is the transformer's
            only; the other models compute in float32.
        weights_dtype: how the transformer's weights are kept, see `LatteT2V.load_weights`.
        resident: keep all models in memory; False drops each after use, and reads the text encoder by layers.
        vae_policy: how latents are decoded; by default chosen for the device.
        mesh: processes that share the work.
        share_decoding: the processes of a team decode the same latents and share the chunks.
        transformer, text_encoder: loaded models to use instead of the folder's.
        """
        self.spec = spec
        self.resident = resident
        self.mesh = mesh or Mesh()
        self.share_decoding = share_decoding
        if self.mesh.size > 1 and engine == "openvino":
            raise ValueError("engine 'openvino' works in one process: use --engine mindspore for several")
        self.engine = choose_engine("mindspore" if self.mesh.size > 1 else engine, precision)
        """Computes with the transformer."""
        alike = precision == "fp32" or self.engine.name == "openvino"
        self._other_engine = self.engine if alike else open_engine("mindspore")
        policy = vae_policy or VAEPolicy.choose(self.engine.device)
        self.vae_policy = replace(policy, chunked=True) if share_decoding else policy
        self._compiled: set[tuple[Any, ...]] = set()
        self._reported: set[str] = set()
        self.text = LazyModel(lambda: self._load_text(text_encoder, pretrained_ckpt))
        self.transformer = LazyModel(
            lambda: (
                self._load_transformer(pretrained_ckpt, weights_dtype) if transformer is None else transformer
            )
        )
        self.vae = LazyModel(self._load_vae)

    @classmethod
    def from_pretrained(
        cls,
        model_path: str | Path = "demo",
        version: str | None = None,
        text_encoder: str | Path | None = BESIDE_THE_MODEL,
        *,
        pretrained_ckpt: str | Path | None = None,
        engine: str = "auto",
        precision: str = "fp32",
        weights_dtype: str = "fp32",
        vae_policy: VAEPolicy | None = None,
        memory: int | None = None,
    ) -> "Pipeline":
        """Open a model folder in the release's layout; "demo" is the model that ships. See the constructor.

        version: folder of the transformer, `<model_path>/<version>`; needed if there are several.
        text_encoder: folder of T5, or None for a pipeline that takes embeddings only.
        memory: bytes to use, by default what is free. Models that do not fit together are loaded in turn.
        Raises WeightsError for files that are missing, damaged or of another model.
        """
        named = None if text_encoder is None or str(text_encoder) == BESIDE_THE_MODEL else text_encoder
        spec = ModelSpec.find(model_path, version, named)
        if text_encoder is None:
            spec = replace(spec, paths=replace(spec.paths, text_encoder=None), text_encoder=None)
        policy = vae_policy or VAEPolicy.choose("CPU" if on_cpu() else "Ascend")
        needed = spec.memory(spec.latent_size(spec.native_size), policy, weights_dtype=weights_dtype).resident
        pipe = cls(
            spec,
            pretrained_ckpt=pretrained_ckpt,
            engine=engine,
            precision=precision,
            weights_dtype=weights_dtype,
            vae_policy=policy,
            resident=needed <= (free_memory() if memory is None else memory),
        )
        models: list[LazyModel[Any]] = [pipe.transformer, pipe.vae]
        pipe.load([*models, pipe.text] if spec.text_encoder else models)
        return pipe

    def load(self, models: Sequence[LazyModel[Any]]) -> None:
        """Load these models to find faulty files now; they stay only if the pipeline is resident."""
        for model in models:
            model.get()
            self.release(model)

    def release(self, model: LazyModel[Any]) -> None:
        """Free a model whose work is done, unless the pipeline is resident."""
        if not self.resident:
            model.release()

    def __call__(
        self,
        prompt: str,
        *,
        negative_prompt: str = "",
        seed: int | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        sampler: str | None = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        fps: int | None = None,
        upstream: bool = False,
        after_step: AfterStep | None = None,
    ) -> Video:
        """Generate a video of the prompt. None stands for the model's default.

        seed: of the numpy Generator for the initial noise and for the noise that samplers add.
        num_frames: 1 makes a picture.
        upstream: sample as the reference does, see `denoise`.
        Raises ValueError for values that this model cannot sample.
        """
        chosen = {
            "num_sampling_steps": steps,
            "guidance_scale": guidance_scale,
            "sample_method": sampler,
            "seed": seed,
            "fps": fps,
        }
        sampling = complete_sampling(self.spec, **chosen, num_frames=num_frames, height=height, width=width)
        embeds, mask = self.encode([negative_prompt, prompt])
        self.release(self.text)
        latents = self.sample(
            sampling, (embeds[1:], mask[1:]), (embeds[:1], mask[:1]), [sampling.seed], upstream, after_step
        )
        self.release(self.transformer)
        frames = self.decode(latents).asnumpy()[0, : sampling.num_frames]
        self.release(self.vae)
        metadata = {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            **asdict(sampling),
            "upstream": upstream,
            "engine": self.engine.name,
            "precision": self.engine.precision,
        }
        return Video(frames, sampling.fps, {**metadata, "model": str(self.spec.paths.transformer)})

    def encode(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings (B, L, D) and masks (B, L), 1 for tokens, both float32.

        Raises ValueError in a pipeline without text encoder.
        """
        tokenizer, encoder = self.text.get()
        self._report_unread(tokenizer, prompts)
        self._announce("the text encoder", self.spec.text_length)
        return encode_text(tokenizer, encoder, prompts, self.spec.text_length)

    def sample(
        self,
        sampling: Sampling,
        text: tuple[np.ndarray, np.ndarray],
        negative: tuple[np.ndarray, np.ndarray],
        seeds: Sequence[int],
        upstream: bool = False,
        after_step: AfterStep | None = None,
    ) -> np.ndarray:
        """Latents float32 (B, C, T, h, w) of B videos, one for each seed.

        text, negative: embeddings and masks from `encode`, of B prompts and of B or 1 negative prompts.
        """
        generators = [np.random.default_rng(seed) for seed in seeds]
        noise = draw(generators, self.spec.latent_shape(sampling.size, upstream))
        latents = self.denoise(
            *text,
            *negative,
            noise,
            sampler=sampling.sample_method,
            steps=sampling.num_sampling_steps,
            guidance_scale=sampling.guidance_scale,
            temporal=sampling.num_frames > 1,
            upstream=upstream,
            generators=generators,
            after_step=after_step,
        )
        return np.asarray(latents.asnumpy())

    def denoise(
        self,
        text_embeds: ArrayLike,
        text_mask: ArrayLike | None,
        negative_embeds: ArrayLike | None,
        negative_mask: ArrayLike | None,
        latents: ArrayLike,
        sampler: str = "PNDM",
        steps: int = 5,
        guidance_scale: float = 7.5,
        temporal: bool = True,
        upstream: bool = False,
        generators: Sequence[np.random.Generator] | None = None,
        after_step: AfterStep | None = None,
    ) -> Tensor:
        """Denoise latents (B, C, T, h, w), at first unit-variance noise. Inputs may be tensors or arrays.

        text_embeds, text_mask: (B, L, D), and (B, L) or None for all tokens.
        negative_embeds, negative_mask: the same with B or 1 rows; read only if guidance_scale is above 1.
        temporal: False skips the blocks that join frames, for pictures.
        generators: one for each video, for samplers that add noise; by default seeded with the video's row.
        after_step: gets the latents as an array after each step.
        upstream: as in the reference, samplers have their bare constructors, and texts have no mask: those of
            one prompt are cut to its length, those of several are zero beyond their length.
        """
        x, embeds, mask = as_array(latents), as_array(text_embeds), as_array(text_mask)
        negative, negative_mask = (
            (as_array(negative_embeds), as_array(negative_mask))
            if is_guided(guidance_scale)
            else (None, None)
        )
        if negative is None and is_guided(guidance_scale):
            raise ValueError(
                f"guidance_scale {guidance_scale} needs negative_embeds: "
                "pass those of an empty prompt, or guidance_scale=1"
            )
        if upstream:
            embeds, negative = upstream_text(embeds, mask, negative)
            mask = negative_mask = None
        texts, masks = _stack(negative, embeds), _stack_masks(negative, negative_mask, embeds, mask)
        transformer = self.transformer.get()
        self._announce("the transformer", x.shape[2:], texts.shape[2], temporal)
        network = Denoiser(transformer, texts, masks, temporal, self.mesh)
        chosen = make_sampler(sampler, steps, upstream)
        generators = generators or [np.random.default_rng(row) for row in range(len(x))]
        return self.engine.tensor(
            sample(network, chosen, x, guidance_scale, generators, after_step or (lambda _: None))
        )

    def decode(self, latents: ArrayLike) -> Tensor:
        """Frames of latents (B, C, T, h, w): a uint8 tensor (B, F, H, W, 3)."""
        vae, x = self.vae.get(), as_array(latents)
        self._announce("the decoder", x.shape[2:])
        return self.engine.tensor(decode_frames(vae, x))

    def _load_text(
        self, encoder: T5Encoder | None, pretrained_ckpt: str | Path | None
    ) -> tuple[Tokenizer, T5Encoder]:
        folder = self.spec.paths.text_encoder
        if folder is None:
            raise WeightsError(
                f"{self.spec.paths.path} was opened without a text encoder: "
                "name the folder of T5 with text_encoder="
            )
        trained = None if pretrained_ckpt is None else trained_text_encoder(pretrained_ckpt)
        if encoder is None and trained is not None:
            log.info("the text encoder is the one that was trained with the transformer, %s", trained)
            encoder = T5Encoder(T5Config.from_dict(load_config(folder)), {}, self._other_engine)
            encoder.load_weights(trained)
        if encoder is None:
            load = T5Encoder.from_pretrained if self.resident else T5Encoder.streamed
            encoder = load(folder, engine=self._other_engine)
        return Tokenizer.from_folder(folder), encoder

    def _load_transformer(self, pretrained_ckpt: str | Path | None, weights_dtype: str) -> LatteT2V:
        transformer = LatteT2V(self.spec.transformer, {}, self.engine)
        transformer.load_weights(pretrained_ckpt or self.spec.paths.transformer, weights_dtype)
        return transformer

    def _load_vae(self) -> CausalVAE:
        vae = CausalVAE.from_pretrained(self.spec.paths.vae, engine=self._other_engine)
        vae.policy = self.vae_policy
        if self.share_decoding:
            vae.sharing = ShardedWorkSharing(self.mesh.team)
        return vae

    def _report_unread(self, tokenizer: Tokenizer, prompts: Sequence[str]) -> None:
        """Log once for each prompt which part of it is beyond the model's number of tokens."""
        length = self.spec.text_length
        for prompt in dict.fromkeys(prompts):
            unread = tokenizer.unread(clean_caption(prompt, sampling=True), length)
            if unread and prompt not in self._reported:
                self._reported.add(prompt)
                log.warning(
                    "the model reads %d tokens of a prompt; of %r it does not read the end: %r",
                    length,
                    shortened(prompt),
                    shortened(unread),
                )

    def _announce(self, stage: str, *shape: Any) -> None:
        """Log that a stage compiles when it meets new shapes."""
        if (stage, shape) not in self._compiled:
            self._compiled.add((stage, shape))
            log.info("compiling %s", stage)


def _stack(negative: np.ndarray | None, positive: np.ndarray) -> np.ndarray:
    """(R, B, ...): [negative, positive] or [positive]. One negative row serves all videos."""
    if negative is None:
        return positive[None]
    if negative.shape[1:] != positive.shape[1:]:
        raise ValueError(
            f"negative_embeds are {negative.shape[1:]} and text_embeds {positive.shape[1:]}: "
            "pad them to one length"
        )
    return np.stack([np.broadcast_to(negative, positive.shape), positive])


def _stack_masks(
    negative: np.ndarray | None,
    negative_mask: np.ndarray | None,
    positive: np.ndarray,
    mask: np.ndarray | None,
) -> np.ndarray | None:
    if mask is None and negative_mask is None:
        return None
    ones = np.ones(positive.shape[:2], np.float32)
    return _stack(
        None if negative is None else (ones if negative_mask is None else negative_mask),
        ones if mask is None else mask,
    )
