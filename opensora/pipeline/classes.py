"""Classes to videos: a Latte and an autoencoder."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from opensora.diffusion import GaussianDiffusion, make_sampler
from opensora.diffusion.guidance import guide, is_guided
from opensora.engine import choose_engine, open_engine
from opensora.engine.block import as_array
from opensora.media.names import safe_name
from opensora.media.sheets import contact_sheet
from opensora.media.writer import write_video
from opensora.models import CausalVAE, Latte
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.models.latte_class.config import LatteClassConfig
from opensora.pipeline.labels import find_label, label_name
from opensora.pipeline.sampling import PredictNoise, draw, sample
from opensora.pipeline.settings import Sampling
from opensora.pipeline.stages import decode_frames
from opensora.runtime import mindspore
from opensora.weights import weight_files

ms = mindspore()
log = logging.getLogger(__name__)

AfterStep = Callable[[np.ndarray], None]
FPS = 24
FRAMES_SHOWN = 8


class ClassDenoiser:
    """A Latte under fixed labels, as `sample` takes it: noise and variance, null half first.

    On a CPU each video is computed alone, so that its last bits do not depend on the batch.
    """

    def __init__(self, model: Latte, labels: Sequence[int], guided: bool) -> None:
        self.model, self.guided = model, guided and model.config.num_classes > 0
        self.labels = np.array(labels, np.int32)
        size = 1 if model.engine.device == "CPU" else len(labels)
        self.groups = [slice(start, start + size) for start in range(0, len(labels), size)]

    def __call__(self, latents: np.ndarray, timestep: float) -> np.ndarray:
        """Latents (B, C, T, h, w) -> float32 (R*B, 2*C, T, h, w), R = 2 with guidance, else 1."""
        outputs = []
        repeats = 2 if self.guided else 1
        for group in self.groups:
            labels = self.labels[group]
            if self.guided:
                labels = np.concatenate([np.full_like(labels, self.model.config.null_label), labels])
            part = np.concatenate([latents[group]] * repeats)
            times = np.full(len(part), timestep, np.float32)
            engine = self.model.engine
            output = engine.output(self.model(engine.input(part), times, labels))
            outputs.append(output.reshape(repeats, -1, *output.shape[1:]))
        whole = np.concatenate(outputs, axis=1)
        return whole.reshape(-1, *whole.shape[2:])


class ClassPipeline:
    """Makes videos of classes.

    pipe = ClassPipeline.from_pretrained("runs/classes", "demo")
    latents = pipe.sample([3], sampling, seeds=[0])
    frames = pipe.decode(latents)  # uint8 (B, F, H, W, 3)
    """

    def __init__(self, model: Latte, vae: CausalVAE) -> None:
        self.model, self.vae = model, vae

    @classmethod
    def from_pretrained(
        cls,
        model_path: str | Path,
        vae: Path,
        *,
        engine: str = "auto",
        precision: str = "fp32",
        vae_policy: VAEPolicy | None = None,
    ) -> "ClassPipeline":
        """Open a model folder, run or file, and an autoencoder. Raises WeightsError or ValueError."""
        opened = choose_engine(engine, precision)
        alike = precision == "fp32" or opened.name == "openvino"
        return cls(
            Latte.from_pretrained(model_path, engine=opened),
            load_vae(vae, opened if alike else open_engine("mindspore"), vae_policy),
        )

    def sample(
        self,
        labels: Sequence[int],
        sampling: Sampling,
        seeds: Sequence[int],
        after_step: AfterStep | None = None,
    ) -> np.ndarray:
        """Latents float32 (B, C, T, h, w) of videos of the labels, from noise drawn with the seeds.

        labels: not read by an unconditional model.
        """
        generators = [np.random.default_rng(seed) for seed in seeds]
        size = self.vae.config.strides.latent_size(sampling.size)
        noise = draw(generators, (self.model.config.in_channels, *size))
        scale = sampling.guidance_scale if self.model.config.num_classes else 1.0
        network = ClassDenoiser(self.model, labels, is_guided(scale))
        steps, after = sampling.num_sampling_steps, after_step or (lambda _: None)
        if sampling.sample_method in ("ddpm", "ddim"):
            learned = sampling.sample_method == "ddpm"
            return sample_original(network, steps, learned, noise, scale, generators, after)
        return sample(network, make_sampler(sampling.sample_method, steps), noise, scale, generators, after)

    def num_evaluations(self, sampling: Sampling) -> int:
        """Calls of `after_step` for a video."""
        if sampling.sample_method in ("ddpm", "ddim"):
            return sampling.num_sampling_steps
        return len(make_sampler(sampling.sample_method, sampling.num_sampling_steps).timesteps)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Latents (B, C, T, h, w) -> frames uint8 (B, F, H, W, 3)."""
        return decode_frames(self.vae, as_array(latents))


def sample_original(
    network: PredictNoise,
    steps: int,
    learned_variance: bool,
    latents: np.ndarray,
    guidance_scale: float,
    generators: Sequence[np.random.Generator],
    after_step: AfterStep,
) -> np.ndarray:
    """Denoise latents (B, C, T, h, w) as the original samples: on evenly spaced timesteps, without clipping.

    learned_variance: add noise with the variance that the network predicts (arXiv:2102.09672), under guidance
    that of the labels; this is its "ddpm". Without it, its "ddim". Raises ValueError if the numbers do not
    stay finite.
    """
    diffusion, channels = GaussianDiffusion(str(steps)), latents.shape[1]
    x = ms.Tensor(latents)
    for step in reversed(range(diffusion.num_timesteps)):
        output = network(x.asnumpy(), float(diffusion.timestep_map[step]))  # (R*B, 2*C, T, h, w)
        noise = guide(output, guidance_scale)[:, :channels]
        output = ms.Tensor(np.concatenate([noise, output[-len(latents) :, channels:]], 1))
        t = np.full(len(latents), step)
        if learned_variance:
            drawn = ms.Tensor(draw(generators, latents.shape[1:]))
            x = diffusion.p_sample(output, x, t, clip_denoised=False, noise=drawn)["sample"]
        else:
            x = diffusion.ddim_sample(output, x, t, clip_denoised=False)["sample"]
        after_step(x.asnumpy())
    result = x.asnumpy()
    if not np.isfinite(result).all():
        raise ValueError(
            f"sampling with guidance_scale {guidance_scale} overflowed: use a smaller one, such as 4"
        )
    return np.asarray(result)


def load_vae(folder: Path, engine: object, policy: VAEPolicy | None = None) -> CausalVAE:
    """The autoencoder of a folder. policy: by default that of the engine."""
    vae = CausalVAE.from_pretrained(folder, engine=engine)  # type: ignore[arg-type]
    vae.policy = policy or vae.policy
    return vae


class ClassPreview:
    """Videos of a few classes with a Latte in training: an mp4 each, and a sheet with frames of all."""

    def __init__(self, labels: Sequence[str], config: LatteClassConfig, vae: Path) -> None:
        """Raises ValueError for an unknown label, WeightsError for weights of the autoencoder that are
        missing.
        """
        self.labels, self.vae = [find_label(config, word) for word in labels], vae
        weight_files(vae)

    def __call__(self, model: Latte, folder: Path, step: int) -> None:
        """Write `folder`/step-<step>/<class>.mp4 and step-<step>.png."""
        pipe = ClassPipeline(model, load_vae(self.vae, model.engine))
        config = model.config
        frames, height, width = pipe.vae.config.strides.pixel_size((config.video_length, *config.sample_size))
        rows, videos = [], folder / f"step-{step:08d}"
        videos.mkdir(parents=True, exist_ok=True)
        for number, label in enumerate(self.labels):
            settings = Sampling(frames, height, width, FPS, 20, 4.0, "DPM++2M", number)
            name = label_name(config, label)
            try:
                (video,) = pipe.decode(pipe.sample([label], settings, [number]))
            except ValueError as error:  # a young network may leave the range of numbers; the run goes on
                log.warning("no video of %r: %s", name, error)
                continue
            suffix = ".mp4" if len(video) > 1 else ".png"
            write_video(videos / f"{safe_name(name, number)}{suffix}", video, FPS)
            shown = np.linspace(0, len(video) - 1, min(FRAMES_SHOWN, len(video))).astype(int)
            rows.append(video[shown])
        if rows:
            sheet = contact_sheet(np.concatenate(rows), columns=len(rows[0]))
            write_video(folder / f"step-{step:08d}.png", sheet[None])
