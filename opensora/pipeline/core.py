"""`Pipeline`: the three models of a folder as one object, loaded together or one after the other."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, Self, Unpack, overload

import numpy as np

from opensora.diffusion import Sampler, make_sampler
from opensora.diffusion.guidance import is_guided
from opensora.engine import choose_engine, open_engine, resolve_engine
from opensora.engine.block import as_array
from opensora.engine.programs import Growth, give_back_memory
from opensora.engine.turns import Turns, taking_turns
from opensora.models import LatteT2V, T5Encoder
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.models.spec import ModelSpec
from opensora.nn import Tensor
from opensora.parallel.mesh import Mesh
from opensora.parallel.sequence import ShardedWorkSharing
from opensora.pipeline.arguments import ArrayLike, CallOptions, Text, read_request, refuse
from opensora.pipeline.call import Call, Callback
from opensora.pipeline.memory import GraphMemory, check_memory, out_of_memory
from opensora.pipeline.models import LazyModel, ModelLoader
from opensora.pipeline.notices import Notices
from opensora.pipeline.sampling import draw, sample, stack, stack_masks, upstream_text
from opensora.pipeline.settings import Sampling
from opensora.pipeline.stages import Denoiser, decode_frames, encode_text
from opensora.pipeline.values import boolean, function, numbers, texts, whole
from opensora.pipeline.video import Video
from opensora.runtime import free_memory, on_cpu

BESIDE_THE_MODEL = "<model_path>/text_encoder"
AfterStep = Callable[[np.ndarray], None]


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
        self.pretrained_ckpt = pretrained_ckpt
        self.weights_dtype = weights_dtype
        self.mesh = mesh or Mesh()
        self.share_decoding = share_decoding
        if self.mesh.size > 1 and engine == "openvino":
            raise ValueError("engine 'openvino' works in one process: use --engine mindspore for several")
        self.engine = choose_engine("mindspore" if self.mesh.size > 1 else engine, precision)
        """Computes with the transformer."""
        alike = precision == "fp32" or self.engine.name == "openvino"
        self._other_engine = self.engine if alike else open_engine("mindspore")
        policy = vae_policy or VAEPolicy.choose(self.engine.device, engine=self.engine.name)
        if self.mesh.size > 1:  # processes share chunks
            policy = replace(policy, chunked=policy.chunked or share_decoding, small=0)
        self.vae_policy = policy
        self._notices = Notices()
        self.closed = False
        self._turns = Turns()
        self._graphs = GraphMemory()
        self._calls: set[Call] = set()
        loader = ModelLoader(
            spec, self.engine, self._other_engine, pretrained_ckpt, weights_dtype, not resident
        )
        sharing = ShardedWorkSharing(self.mesh.team) if share_decoding else None
        self.text = LazyModel(lambda: loader.text(text_encoder))
        self.transformer = LazyModel(lambda: transformer or loader.transformer())
        self.vae = LazyModel(lambda: loader.vae(self.vae_policy, sharing))

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
        policy = vae_policy or VAEPolicy.choose(
            "CPU" if on_cpu() else "Ascend", engine=resolve_engine(engine)
        )
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

    @overload
    def __call__(self, prompt: str, **options: Unpack[CallOptions]) -> Video: ...

    @overload
    def __call__(
        self,
        prompt: list[str] | tuple[str, ...],
        *,
        num_videos_per_prompt: int = ...,
        **options: Unpack[CallOptions],
    ) -> list[Video]: ...

    @overload
    def __call__(
        self, prompt: str | None = None, *, num_videos_per_prompt: int = ..., **options: Unpack[CallOptions]
    ) -> Video | list[Video]: ...

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        negative_prompt: str | Sequence[str] = "",
        num_videos_per_prompt: int = 1,
        seed: int | Sequence[int] | None = None,
        batch_size: int = 1,
        steps: int | None = None,
        guidance_scale: float | None = None,
        sampler: str | Sampler | None = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        fps: int | None = None,
        upstream: bool = False,
        prompt_embeds: ArrayLike | None = None,
        prompt_mask: ArrayLike | None = None,
        negative_embeds: ArrayLike | None = None,
        negative_mask: ArrayLike | None = None,
        latents: ArrayLike | None = None,
        memory: int | None = None,
        progress: bool = False,
        callback: Callback | None = None,
        **unknown: Any,
    ) -> Video | list[Video]:
        """Generate a `Video` of the prompt, or a list of them. None stands for the model's default.

        prompt: a text, or a list of texts. With one text and one video per prompt the result is a `Video`.
        negative_prompt: what the videos should not show: one text for all, or one for each prompt.
        seed: of the numpy Generator for the initial noise and for the noise that samplers add. Video n of a
            call has seed + n, or the n-th number of a list. It is the video that a call of its own gives.
        batch_size: videos that are denoised together; on a CPU it does not change the result.
        steps, guidance_scale: the number of sampling steps, and how strongly the prompt is followed; 1
            disables guidance.
        sampler: a name in `opensora.diffusion.SAMPLERS`, or an object like `opensora.diffusion.Sampler`,
            which determines the steps.
        num_frames: 1 makes a picture. height, width: in pixels. fps: frames per second of the result.
        upstream: sample as the reference does, see `denoise`.
        prompt_embeds, prompt_mask: (B, L, D), and (B, L) with 1 for tokens, in place of prompts; likewise
            negative_embeds and negative_mask, of B rows or one.
        latents: unit-variance noise (n, C, T, h, w) to start from, for n videos, or one row for all.
        memory: bytes that may be used, by default what is free.
        progress: show a bar, or log a line every ten seconds where there is no terminal.
        callback: called as `callback(step, total, latents, preview)` after each step; `preview()` decodes the
            latents to frames (B, F, H, W, 3).

        Raises TypeError and ValueError for arguments that this model does not take, and ValueError for a
        video that cannot fit in memory. Nothing is computed before. Raises Cancelled after `cancel`.

        Threads may share a pipeline: their calls take turns, in order.
        """
        refuse(unknown, list(CallOptions.__annotations__))
        request = read_request(
            self.spec,
            prompt=prompt,
            negative_prompt=negative_prompt,
            num_videos_per_prompt=num_videos_per_prompt,
            seed=seed,
            batch_size=batch_size,
            settings={
                "steps": steps,
                "guidance_scale": guidance_scale,
                "num_frames": num_frames,
                "height": height,
                "width": width,
                "fps": fps,
            },
            sampler=sampler,
            upstream=upstream,
            prompt_embeds=prompt_embeds,
            prompt_mask=prompt_mask,
            negative_embeds=negative_embeds,
            negative_mask=negative_mask,
            latents=latents,
        )
        call = Call(self, request, boolean("progress", progress), function("callback", callback))
        limit = None if memory is None else whole("memory", memory, 0, 2**62)
        self._calls.add(call)
        try:
            with self._turn(call.check):
                check_memory(self, request, limit)
                videos = self._run(call)
        except MemoryError as error:
            self._free()
            raise out_of_memory(self, request) from error
        finally:
            self._calls.discard(call)
        return videos[0] if request.single else videos

    def close(self) -> None:
        """Let the models go, and what was compiled for them; later calls are refused.

        It waits for calls that are under way. A `with` block does it at its end.
        """
        if not self.closed:
            with self._turn():
                self._free()
                self.closed = True

    def __reduce__(self) -> NoReturn:
        raise TypeError("a pipeline cannot be copied or sent to another process: open one there")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def cancel(self) -> None:
        """End the calls that are under way or wait for their turn: they raise `Cancelled` between two steps.

        For another thread, the callback or a signal handler. Later calls are not affected.
        """
        for call in list(self._calls):
            call.cancelled = True

    def encode(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings (B, L, D) and masks (B, L), 1 for tokens, both float32.

        Raises ValueError in a pipeline without text encoder.
        """
        prompts = texts("prompts", prompts)
        with self._turn():
            tokenizer, encoder = self.text.get()
            self._notices.unread(tokenizer, prompts, self.spec.text_length)
            self._notices.compiling("the text encoder", self.spec.text_length)
            return encode_text(tokenizer, encoder, prompts, self.spec.text_length)

    def sample(
        self,
        sampling: Sampling,
        text: Text,
        negative: Text | None,
        seeds: Sequence[int],
        upstream: bool = False,
        after_step: AfterStep | None = None,
        *,
        noise: np.ndarray | None = None,
        sampler: Sampler | None = None,
    ) -> np.ndarray:
        """Latents float32 (B, C, T, h, w) of B videos, one for each seed.

        text, negative: embeddings and masks from `encode`, of B prompts and of B or 1 negative prompts; None
            without guidance.
        noise: to start from, by default drawn with the seeds.
        sampler: instead of the one that `sampling` names.
        """
        generators = [np.random.default_rng(seed) for seed in seeds]
        if noise is None:
            noise = draw(generators, self.spec.latent_shape(sampling.size, upstream))
        negative_embeds, negative_mask = negative or (None, None)
        latents = self.denoise(
            *text,
            negative_embeds,
            negative_mask,
            noise,
            sampler=sampler or sampling.sample_method,
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
        sampler: str | Sampler = "PNDM",
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
        sampler: a name, or an object that determines the steps.
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
        both, masks = stack(negative, embeds), stack_masks(negative, negative_mask, embeds, mask)
        chosen = make_sampler(sampler, steps, upstream) if isinstance(sampler, str) else sampler
        generators = generators or [np.random.default_rng(row) for row in range(len(x))]
        with self._turn():
            transformer = self.transformer.get()
            self._notices.compiling("the transformer", x.shape[2:], both.shape[2], temporal)
            network = Denoiser(transformer, both, masks, temporal, self.mesh)
            watch = after_step or (lambda _: None)
            return self.engine.tensor(sample(network, chosen, x, guidance_scale, generators, watch))

    def decode(self, latents: ArrayLike) -> Tensor:
        """Frames of latents (B, C, T, h, w): a uint8 tensor (B, F, H, W, 3).

        Raises ValueError for latents that are not finite or of another shape.
        """
        x, channels = numbers("latents", latents, "B C T h w"), self.spec.vae.embed_dim
        if x.shape[1] != channels:
            raise ValueError(f"latents have {x.shape[1]} channels, this model takes {channels}")
        with self._turn():
            vae = self.vae.get()
            self._notices.compiling("the decoder", x.shape[2:])
            return self.engine.tensor(decode_frames(vae, x))

    def _run(self, call: Call) -> list[Video]:
        for engine in (self.engine, self._other_engine):
            engine.new_call()
        compiled, growth = self._notices.compiled, Growth()
        videos = call.run()
        if self.engine.name == "mindspore" and self._notices.compiled > compiled:
            self._graphs.add(growth.bytes)
        return videos

    def _free(self) -> None:
        for model in (self.text, self.transformer, self.vae):
            model.release()
        for engine in (self.engine, self._other_engine):
            engine.close()
        self._notices = Notices()
        give_back_memory()

    def _turn(self, check: Callable[[], None] = lambda: None) -> AbstractContextManager[None]:
        """This thread's turn to compute. check: called while it waits; what it raises ends the waiting."""
        if self.closed:
            raise ValueError("this pipeline is closed: open another with Pipeline.from_pretrained")
        return taking_turns(self._turns, {self.engine.name, self._other_engine.name}, check)
