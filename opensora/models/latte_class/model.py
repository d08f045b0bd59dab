"""Latte: a diffusion transformer for videos of classes, or of no class (arXiv:2401.03048)."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from opensora.engine import Engine, open_engine, run_network
from opensora.engine.block import as_array
from opensora.models import embeddings
from opensora.models.latent_transformer import LatentTransformer
from opensora.models.latte.config import TIMESTEP_CHANNELS
from opensora.models.latte.masks import latent_biases
from opensora.models.latte_class.config import LatteClassConfig
from opensora.models.latte_class.network import NETWORKS, DenoiserInputs
from opensora.models.latte_class.weights import (
    find_config,
    open_latte_class,
    position_tables,
    require_all,
    weight_shapes,
    weight_specs,
)
from opensora.nn import Tensor
from opensora.weights import save_weights

if TYPE_CHECKING:
    from opensora.engine.mindspore import Tape


class Latte(LatentTransformer[LatteClassConfig]):
    """The denoiser: its configuration, and its weights under the published names."""

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, engine: str | Engine = "mindspore", precision: str = "fp32"
    ) -> "Latte":
        """Load a model folder or run with config.json, or a published file (.pt, .safetensors).

        Raises WeightsError or ValueError.
        """
        model = cls(find_config(source), {}, open_engine(engine, precision))
        model.load_weights(source)
        return model

    @classmethod
    def from_weights(
        cls,
        weights: Mapping[str, Tensor],
        *,
        engine: str | Engine = "mindspore",
        precision: str = "fp32",
        **config: Any,
    ) -> "Latte":
        """A model from arrays or tensors under the published names.

        config: the content of a config.json. Raises WeightsError for missing names and wrong shapes,
        ValueError for settings.
        """
        chosen, opened = LatteClassConfig.from_dict(config), open_engine(engine, precision)
        require_all(weights, chosen)
        arrays = {
            name: np.ascontiguousarray(as_array(weights[name]), np.float32) for name in weight_shapes(chosen)
        }
        return cls(chosen, opened.weights(arrays), opened)

    def load_weights(self, source: str | Path) -> None:
        """Load weights from a file, a model folder, a checkpoint, or the moving average of a run.

        Raises WeightsError.
        """
        self.weights = self.engine.weights(open_latte_class(source, self.config))

    @classmethod
    def initialise(cls, config: LatteClassConfig, rng: np.random.Generator) -> "Latte":
        """A model with random weights; `weight_specs` gives the distribution of each."""
        specs = weight_specs(config)
        return cls(config, open_engine().weights({name: spec.draw(rng) for name, spec in specs.items()}))

    def save_pretrained(self, folder: str | Path, dtype: str = "float32") -> None:
        """Write a folder that `from_pretrained` loads; the original reads its file of weights."""
        arrays = {name: as_array(value) for name, value in self.weights.items()}
        save_weights(folder, self.config.to_dict(), {**position_tables(self.config), **arrays}, dtype=dtype)

    def __call__(
        self,
        latents: Tensor,
        timestep: Tensor,
        labels: Tensor = None,
        latent_mask: Tensor = None,
        num_images: int = 0,
        *,
        tape: "Tape | None" = None,
    ) -> Tensor:
        """Predict the noise and the logits of its variance, (B, C, T+N, H, W) -> (B, 2C, T+N, H, W).

        latents: T frames of a video, then N images.
        timestep: (B,), may be fractional.
        labels: (B,) whole numbers; `config.null_label`, or None for all, is no class. An unconditional model
            does not read them.
        latent_mask: (B, T+N, H, W), 1 keeps a latent; or of the patches of each frame, (B*(T+N), S).
        num_images: N.
        tape: records the call for gradients; `forward_with_tape` makes one.

        Raises ValueError for shapes and labels that do not fit the model.
        """
        inputs = self._inputs(latents, timestep, labels, latent_mask, num_images)
        network = NETWORKS[self.config.variant]
        return run_network(self.engine, tape, network, self.weights, self.config, inputs)

    def guided(self, latents: Tensor, timestep: Tensor, labels: Tensor, guidance_scale: float) -> np.ndarray:
        """The output with classifier-free guidance towards the labels, (B, C, T, H, W) -> (B, 2C, T, H, W).

        The noise is that of the null label plus `guidance_scale` times the difference; the logits of the
        variance are those of the labels, as in the original.
        """
        values, channels = as_array(latents), self.config.in_channels
        count = len(values)
        both = np.concatenate([as_array(labels), np.full(count, self.config.null_label)])
        twice = [np.concatenate([array, array]) for array in (values, as_array(timestep))]
        output = as_array(self(self.engine.input(twice[0]), twice[1], both))
        labelled, free = output[:count], output[count:]
        noise = free[:, :channels] + guidance_scale * (labelled[:, :channels] - free[:, :channels])
        return np.concatenate([noise, labelled[:, channels:]], 1)

    def last_blocks(self, layers: int) -> set[str]:
        total = self.config.num_layers
        chosen = range(max(0, total - layers), total)
        if self.config.variant == "dit":
            return {f"blocks.{2 * layer + half}" for layer in chosen for half in (0, 1)}
        return {f"{axis}transformer_blocks.{layer}" for layer in chosen for axis in ("", "temporal_")}

    def _inputs(
        self, latents: Tensor, timestep: Tensor, labels: Tensor, latent_mask: Tensor, num_images: int
    ) -> DenoiserInputs:
        """The inputs of the network, checked. Raises ValueError."""
        config = self.config
        self.check_latents(latents, num_images)
        steps = np.asarray(as_array(timestep))
        sinusoids = embeddings.timestep_embedding(
            steps, TIMESTEP_CHANNELS, lowest=config.variant == "zero"
        )  # (B, 256)
        bias = None
        if latent_mask is not None:
            bias, _ = latent_biases(self.engine, latent_mask, latents.shape, config.patch_size)
        labels = self._labels(labels, latents.shape[0])
        return DenoiserInputs(latents, sinusoids, labels, bias, num_images)

    def _labels(self, labels: Tensor, count: int) -> np.ndarray | None:
        """int32 (B,), or None for an unconditional model."""
        config = self.config
        if not config.num_classes:
            return None
        if labels is None:
            return np.full(count, config.null_label, np.int32)
        numbers = np.asarray(as_array(labels))
        if numbers.shape != (count,) or not np.issubdtype(numbers.dtype, np.integer):
            raise ValueError(
                f"labels have the shape {numbers.shape} and the type {numbers.dtype}: "
                f"they must be {count} whole numbers, one for each sample"
            )
        if wrong := [int(number) for number in numbers if not 0 <= number <= config.null_label]:
            raise ValueError(
                f"the label {wrong[0]} is unknown: this model has {config.num_classes} classes, "
                f"0 to {config.num_classes - 1}, and {config.null_label} for none"
            )
        return numbers.astype(np.int32)
