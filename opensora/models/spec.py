"""`ModelSpec`: what a model folder holds, read once. Does not import MindSpore."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import NamedTuple, Self

from opensora.models.causal_vae import cost as vae_cost
from opensora.models.causal_vae.config import CausalVAEConfig, is_of_images
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.models.geometry import FLOAT, Size, Strides
from opensora.models.latte import cost as latte_cost
from opensora.models.latte.config import LatteConfig
from opensora.models.t5 import cost as t5_cost
from opensora.models.t5.config import T5Config
from opensora.weights import CONFIG, ModelFolder, WeightsError, find_model, load_config
from opensora.weights.sources import folder_files

STAGES = ("text", "denoise", "decode")
"""The stages of generating a video, one model each."""
FRAMEWORK = 2**30
"""Bytes of the process itself: libraries, compiled code, the allocator's slack."""
WEIGHT_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
# A config.json without these keys is not that of such a model.
TRANSFORMER_KEYS = ("patch_size", "sample_size", "video_length")
VAE_KEYS = ("encoder_spatial_downsample", "encoder_temporal_downsample")


class Memory(NamedTuple):
    """Bytes of the whole process.

    Weights are counted in the headers of their files, activations are estimated.
    """

    resident: int
    """Bytes with all models loaded."""
    staged: int
    """Bytes with one model after the other, the text encoder layer by layer."""
    min: int
    """The least that any run needs: the largest model's weights and some of its activations. Less than
    `staged`."""


@dataclass(frozen=True)
class ModelSpec:
    """The configurations of a model's three networks, and where their weights lie.

    text_encoder: None for a model of embeddings only.
    """

    paths: ModelFolder
    transformer: LatteConfig
    vae: CausalVAEConfig
    text_encoder: T5Config | None

    @classmethod
    def read(cls, paths: ModelFolder) -> Self:
        """Read the config.json of each folder.

        Raises WeightsError or ValueError for one that is not that of a released model.
        """
        transformer = load_config(paths.transformer)
        _require(transformer, TRANSFORMER_KEYS, paths.transformer)
        text_encoder = paths.text_encoder
        return cls(
            paths,
            LatteConfig.from_dict(transformer, paths.transformer / CONFIG),
            _vae_config(paths.vae),
            None
            if text_encoder is None
            else T5Config.from_dict(load_config(text_encoder), text_encoder / CONFIG),
        )

    @classmethod
    def find(
        cls,
        model_path: str | Path = "demo",
        version: str | None = None,
        text_encoder: str | Path | None = None,
        num_frames: int | None = None,
    ) -> Self:
        """The model of a folder; arguments and errors are those of `find_model`, and errors of `read`."""
        return cls.read(find_model(model_path, version, text_encoder, num_frames))

    def with_vae(self, folder: Path) -> Self:
        """The same model with the autoencoder of another folder. Raises what `read` raises."""
        return replace(self, paths=replace(self.paths, vae=folder), vae=_vae_config(folder))

    @property
    def strides(self) -> Strides:
        """The factors by which latents are smaller than a video."""
        return self.vae.strides

    @property
    def text_length(self) -> int:
        """Tokens of a prompt, padding included."""
        return self.transformer.model_max_length

    @property
    def native_size(self) -> Size:
        """Frames, height and width of the videos that the transformer was trained on."""
        return self.strides.pixel_size((self.transformer.video_length, *self.transformer.sample_size))

    def latent_size(self, pixels: Size, upstream: bool = False) -> Size:
        """(T, h, w) of the latents to sample for a video of (frames, height, width).

        upstream: as the reference, take one latent frame fewer for an even number of frames; 16 frames become
        13.
        """
        return self.strides.latent_size(pixels, partial=not (upstream and pixels[0] % 2 == 0))

    def latent_shape(self, pixels: Size, upstream: bool = False) -> tuple[int, int, int, int]:
        """(C, T, h, w) with the size of `latent_size`."""
        return (self.vae.embed_dim, *self.latent_size(pixels, upstream))

    @cached_property
    def weight_bytes(self) -> Mapping[str, int]:
        """Bytes of each stage's weights in float32, 0 where there are none.

        Raises WeightsError for a damaged file.
        """
        paths = self.paths
        folders = {"text": paths.text_encoder, "denoise": paths.transformer, "decode": paths.vae}
        return {stage: 0 if folder is None else _weight_bytes(folder) for stage, folder in folders.items()}

    def memory(
        self,
        latent_size: Size,
        policy: VAEPolicy,
        *,
        stages: Collection[str] = STAGES,
        weights_dtype: str = "fp32",
        guided: bool = True,
        loaded: Collection[str] = (),
    ) -> Memory:
        """Memory for one video with latents (T, h, w).

        policy: how it is decoded. weights_dtype: how the transformer's weights are kept. guided: whether each
        step computes both halves of the guidance. loaded: stages whose models are in memory already. Only the
        stage with most activations counts for them.
        """
        held = {name: 0 if name in loaded else size for name, size in self.weight_bytes.items()}
        held["denoise"] = held["denoise"] * WEIGHT_BYTES[weights_dtype] // FLOAT
        staged = dict(held)
        if self.text_encoder is not None:
            staged["text"] = t5_cost.streamed_bytes(self.text_encoder, held["text"])
        activations = {
            "text": 0,
            "denoise": latte_cost.activation_bytes(self.transformer, latent_size),
            "decode": vae_cost.decode_bytes(self.vae, latent_size, policy),
        }
        least = {
            "text": staged["text"] // 2,  # one layer
            "denoise": held["denoise"]
            + latte_cost.least_activation_bytes(self.transformer, latent_size, guided),
            "decode": held["decode"],
        }
        return Memory(
            resident=FRAMEWORK
            + sum(held[stage] for stage in stages)
            + max(activations[stage] for stage in stages),
            staged=FRAMEWORK + max(staged[stage] + activations[stage] for stage in stages),
            min=max(least[stage] for stage in stages),
        )


def _vae_config(folder: Path) -> CausalVAEConfig:
    """The configuration of an autoencoder of videos or of images."""
    values = load_config(folder)
    if not is_of_images(values):
        _require(values, VAE_KEYS, folder)
    return CausalVAEConfig.from_dict(values, folder / CONFIG)


def _require(config: Mapping[str, object], names: Collection[str], folder: Path) -> None:
    for name in names:
        if name not in config:
            raise WeightsError(f"config.json in {folder} is not that of a released model: it has no {name!r}")


def _weight_bytes(folder: Path) -> int:
    return FLOAT * sum(prod(entry.shape) for file in folder_files(folder) for entry in file.entries.values())
