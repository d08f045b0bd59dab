"""CausalVAE of Open-Sora-Plan v1.1.0: causal convolutions that turn videos into latents and back.

The release's latents are 4x8x8 smaller than the video.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from opensora.engine import Engine, open_engine
from opensora.engine.block import Block, Run, Weights, as_array
from opensora.models.causal_vae.blocks import BLOCKS
from opensora.models.causal_vae.chunked import run_chunked
from opensora.models.causal_vae.config import (
    CausalVAEConfig,
    Layer,
    decoder_layers,
    encoder_layers,
    open_causal_vae,
    weight_shapes,
)
from opensora.models.causal_vae.cost import whole_bytes
from opensora.models.causal_vae.frames import Workspace
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.models.causal_vae.posterior import Posterior, sample
from opensora.models.causal_vae.tiling import Tiling, tiled
from opensora.models.initial import uniform
from opensora.nn import F, Tensor
from opensora.nn.exchange import WorkSharing
from opensora.runtime import mindspore
from opensora.weights import CONFIG, load_config, save_weights

if TYPE_CHECKING:
    from opensora.engine.mindspore import Tape

INITIAL_LOGVAR = -6.0


@Block
def _to_frames(weights: Weights, video: Tensor) -> Tensor:
    return F.to_frames(video)


@Block
def _to_video(weights: Weights, x: Tensor, batch: int) -> Tensor:
    return F.from_frames(x, batch)


@Block
def _sample(weights: Weights, moments: Tensor, noise: Tensor) -> Tensor:
    return sample(F, moments, F.stop_gradient(noise))


@Block
def _mode(weights: Weights, moments: Tensor) -> Tensor:
    return F.chunk(moments, 2, 1)[0]


@Block
def _noisy(weights: Weights, latents: Tensor, noise: Tensor) -> Tensor:
    return latents + F.stop_gradient(noise)


def chain(run: Run, layers: tuple[Layer, ...], groups: int, video: Tensor) -> Tensor:
    """The network: layers one after the other, on a video (B, C, F, H, W). groups: of the norms."""
    batch = video.shape[0]
    x = run(_to_frames, "", video)  # (F*B, C, H, W)
    for layer in layers:
        x = run(BLOCKS[layer.kind.block], layer.prefix, x, batch, groups)
    return run(_to_video, "", x, batch)


class CausalVAE:
    """The autoencoder: a config and a dict of weights under the release's names."""

    def __init__(
        self, config: CausalVAEConfig, weights: Mapping[str, Tensor], engine: Engine | None = None
    ) -> None:
        """engine: what computes, by default MindSpore; `weights` are as it keeps them."""
        self.config = config
        self.weights = weights
        self.engine = engine or open_engine()
        self.policy = VAEPolicy.choose(self.engine.device, engine=self.engine.name)
        """How `encode` and `decode` bound their memory."""
        self.sharing = WorkSharing()
        """How several devices share the chunks of a video, where the policy is chunked."""
        self._encoder, self._decoder = tuple(encoder_layers(config)), tuple(decoder_layers(config))

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        engine: str | Engine = "mindspore",
        precision: str = "fp32",
        **overrides: Any,
    ) -> "CausalVAE":
        """Load `<folder>/config.json` and the weights beside it; those of the training loss are ignored.

        engine: "mindspore" or "openvino". precision: "fp32" or "bf16". overrides: values for the
        configuration. Raises WeightsError, and ValueError for a precision that the device does not have.
        """
        config = CausalVAEConfig.from_dict({**load_config(folder), **overrides}, Path(folder) / CONFIG)
        vae = cls(config, {}, open_engine(engine, precision))
        vae.load_weights(folder)
        return vae

    def load_weights(self, source: str | Path) -> None:
        """Take the weights of a model folder or a safetensors file. Raises WeightsError."""
        self.weights = self.engine.weights(open_causal_vae(source, self.config))

    @classmethod
    def initialise(cls, config: CausalVAEConfig, rng: np.random.Generator) -> "CausalVAE":
        """Fresh weights, to train from.

        Convolutions keep the variance of their input. Residual branches end in zeros (arXiv:1901.09321), so
        training starts with a short chain. Latents have little noise: unit noise would drown the untrained
        encoder's signal.
        """
        shapes = weight_shapes(config)
        weights = {}
        for name, shape in shapes.items():
            if name.endswith("mix_factor"):
                value = np.full(shape, 2.0, np.float32)
            elif "norm" in name:
                value = np.full(shape, 1.0 if name.endswith("weight") else 0.0, np.float32)
            elif ".conv2." in name or ".proj_out." in name:
                value = np.zeros(shape, np.float32)
            else:
                layer, kind = name.rsplit(".", 1)
                fan_in = np.prod(shapes[f"{layer}.weight"][1:])
                value = uniform(rng, shape, np.sqrt((3.0 if kind == "weight" else 1.0) / fan_in))
            if name == "quant_conv.conv.bias":
                value[config.embed_dim :] = INITIAL_LOGVAR
            weights[name] = value
        return cls(config, open_engine().weights(weights))

    def save_pretrained(self, folder: str | Path, dtype: str = "float32") -> None:
        """Write config.json and diffusion_pytorch_model.safetensors, which the reference loads as well."""
        save_weights(
            folder,
            asdict(self.config),
            {name: as_array(value) for name, value in self.weights.items()},
            dtype=dtype,
        )

    @property
    def tiling(self) -> Tiling | None:
        """The tiles of the policy. Setting it raises ValueError for tiles that the strides do not divide."""
        return self.policy.tiling

    @tiling.setter
    def tiling(self, tiling: Tiling | None) -> None:
        if tiling is not None:
            tiling.in_latents(self.config.strides)
        self.policy = replace(self.policy, tiling=tiling)

    def encode(self, video: Tensor) -> Posterior:
        """(B, 3, F, H, W) in [-1, 1] -> the posterior over latents (B, C, T, h, w); see `latent_shape`.

        Raises ValueError for a height or width that is not a multiple of the stride.
        """
        stride, (height, width) = self.config.strides.space, video.shape[3:]
        if height % stride or width % stride:
            raise ValueError(
                f"the frames are {height}x{width}: height and width must be multiples of {stride}"
            )
        if self.config.frame_by_frame and video.shape[2] > 1:
            return Posterior(self._by_frame(lambda frame: self.encode(frame).moments, video))
        if self.tiling is not None and self.tiling.splits(video.shape[2:]):
            latents = self.tiling.in_latents(self.config.strides)
            return Posterior(self._tiled(self._encoder, video, self.tiling, latents))
        return Posterior(self._apply(self._encoder, video))

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape (B, C, T, h, w) of the latents of a video (B, 3, F, H, W)."""
        return (shape[0], self.config.embed_dim, *self.config.strides.latent_size(shape[2:], partial=False))

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, T, h, w) -> (B, 3, F, H, W), about [-1, 1]; of the release 4x8x8 larger, F = 4*T - 3."""
        if self.config.frame_by_frame and latents.shape[2] > 1:
            return self._by_frame(self.decode, latents)
        if self.tiling is not None:
            tiles = self.tiling.in_latents(self.config.strides)
            if tiles.splits(latents.shape[2:]):
                return self._tiled(self._decoder, latents, tiles, self.tiling)
        return self._apply(self._decoder, latents)

    def forward_with_tape(
        self,
        video: Tensor,
        noise: Tensor = None,
        freeze_encoder: bool = False,
        decoder_noise: Tensor = None,
        recompute: bool = True,
    ) -> tuple[Tensor, Posterior, "Tape"]:
        """Reconstruction (B, 3, F, H, W), posterior, and the tape for gradients.

        noise: (B, C, T, h, w) to sample latents with; None decodes the posterior's mode. freeze_encoder: the
        tape begins at the posterior. decoder_noise: (B, C, T, h, w), added to the latents before decoding.
        recompute: the backward pass computes the layers' activations again; else they are saved.
        """
        if self.config.frame_by_frame:
            raise ValueError(
                "an autoencoder of images cannot be trained: make one of videos of it with "
                "`opensora inflate-vae`"
            )
        # Without the last layer, whose gradient a loss may look at before the walk back (`Tape.peek`).
        saved = [] if recompute else [layer.prefix for layer in (*self._encoder, *self._decoder[:-1])]
        groups, tape = self.config.norm_num_groups, self.engine.tape(self.weights, saved)
        if freeze_encoder:
            moments = self.engine.run(chain, self.weights, self._encoder, groups, video)
        else:
            moments = chain(tape, self._encoder, groups, video)
        latents = tape(_mode, "", moments) if noise is None else tape(_sample, "", moments, noise)
        if decoder_noise is not None:
            latents = tape(_noisy, "", latents, decoder_noise)
        return chain(tape, self._decoder, groups, latents), Posterior(moments), tape

    def value_and_grad(
        self, loss_of_output: Callable[[Tensor, Posterior], Tensor], video: Tensor, noise: Tensor = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar loss_of_output(reconstruction, posterior), and its gradient by weight name."""
        reconstruction, posterior, tape = self.forward_with_tape(video, noise)
        loss, (by_reconstruction, by_moments) = mindspore().value_and_grad(
            lambda r, m: loss_of_output(r, Posterior(m)), (0, 1)
        )(reconstruction, posterior.moments)
        gradients, _ = tape.gradients([(reconstruction, by_reconstruction), (posterior.moments, by_moments)])
        return loss, gradients

    def _by_frame(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """The function of each frame of (B, C, F, H, W) by itself, joined."""
        frames = [function(x[:, :, place : place + 1]) for place in range(x.shape[2])]
        return self.engine.tensor(np.concatenate([as_array(frame) for frame in frames], 2))

    def _apply(self, layers: tuple[Layer, ...], x: Tensor) -> Tensor:
        groups = self.config.norm_num_groups
        decode = layers is self._decoder
        size = self.config.strides.pixel_size(x.shape[2:]) if decode else x.shape[2:]
        activations = whole_bytes(self.config, size, x.shape[0], decode, engine=self.policy.engine)
        if not self.policy.in_chunks(activations):
            return self.engine.run(chain, self.weights, layers, groups, x)
        with Workspace(self.policy.storage) as workspace:
            video = run_chunked(
                layers, self.engine, self.weights, as_array(x), groups, workspace, self.sharing
            )
        return self.engine.tensor(video)

    def _tiled(self, layers: tuple[Layer, ...], x: Tensor, tiles: Tiling, out: Tiling) -> Tensor:
        def network(tile: np.ndarray) -> np.ndarray:
            y = self.engine.run(chain, self.weights, layers, self.config.norm_num_groups, tile)
            return np.asarray(as_array(y))

        return self.engine.tensor(tiled(network, as_array(x), tiles, out))
