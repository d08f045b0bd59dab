"""CausalVAE of Open-Sora-Plan v1.1.0: causal convolutions that turn videos into latents and back.

The release's latents are 4x8x8 smaller than the video.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from opensora.engine.block import Block, Weights
from opensora.engine.mindspore import Forward, Tape
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
from opensora.models.causal_vae.frames import Workspace
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.models.causal_vae.tiling import Tiling, tiled
from opensora.models.initial import uniform
from opensora.nn.convolution import from_frames, to_frames
from opensora.nn.exchange import WorkSharing
from opensora.nn.on_demand import tensors
from opensora.nn.tensor import Tensor
from opensora.runtime import device, mindspore
from opensora.weights import load_config, save_weights

ms = mindspore()
ops = ms.ops

INITIAL_LOGVAR = -6.0


@dataclass(frozen=True)
class Posterior:
    """The encoder's Gaussian over latents.

    `moments` (B, 2*C, T, h, w) are its mean and log-variance, unclamped.
    """

    moments: Tensor

    @property
    def mean(self) -> Tensor:
        return ops.chunk(self.moments, 2, 1)[0]

    @property
    def logvar(self) -> Tensor:
        return ops.clamp(ops.chunk(self.moments, 2, 1)[1], -30.0, 20.0)

    def mode(self) -> Tensor:
        return self.mean

    def sample(self, noise: Tensor) -> Tensor:
        """mean + std * noise, with noise (B, C, T, h, w) of unit variance."""
        return _sample({}, self.moments, noise)

    def kl(self) -> Tensor:
        """KL divergence to the unit Gaussian, (B, w): summed, as in the reference, over all other axes."""
        return gaussian_kl(self.moments)


def gaussian_kl(moments: Tensor) -> Tensor:
    """`Posterior.kl` of moments (B, 2*C, T, h, w): (B, w)."""
    mean, logvar = ops.chunk(moments, 2, 1)
    logvar = ops.clamp(logvar, -30.0, 20.0)
    return 0.5 * ops.sum(mean * mean + ops.exp(logvar) - 1.0 - logvar, (1, 2, 3))


def _frames_block(weights: Weights, video: Tensor) -> Tensor:
    return to_frames(video)


def _video_block(weights: Weights, x: Tensor, batch: int) -> Tensor:
    return from_frames(x, batch)


def _sample_block(weights: Weights, moments: Tensor, noise: Tensor) -> Tensor:
    mean, logvar = ops.chunk(moments, 2, 1)
    return mean + ops.exp(0.5 * ops.clamp(logvar, -30.0, 20.0)) * ops.stop_gradient(noise)


def _mode_block(weights: Weights, moments: Tensor) -> Tensor:
    return ops.chunk(moments, 2, 1)[0]


def _add_noise(weights: Weights, latents: Tensor, noise: Tensor) -> Tensor:
    return latents + ops.stop_gradient(noise)


_to_frames, _to_video = Block(_frames_block), Block(_video_block)
_sample, _mode, _noisy = Block(_sample_block), Block(_mode_block), Block(_add_noise)


class CausalVAE:
    """The autoencoder: a config and a dict of weights under the release's names."""

    def __init__(self, config: CausalVAEConfig, weights: dict[str, Tensor]) -> None:
        self.config = config
        self.weights = weights
        self.policy = VAEPolicy.choose(device())
        """How `encode` and `decode` bound their memory."""
        self.sharing = WorkSharing()
        """How several devices share the chunks of a video, where the policy is chunked."""
        self._encoder, self._decoder = encoder_layers(config), decoder_layers(config)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **overrides: Any) -> "CausalVAE":
        """Load `<folder>/config.json` and the weights beside it; those of the training loss are ignored.

        overrides: values for the configuration. Raises WeightsError.
        """
        config = CausalVAEConfig.from_dict({**load_config(folder), **overrides})
        vae = cls(config, {})
        vae.load_weights(folder)
        return vae

    def load_weights(self, source: str | Path) -> None:
        """Take the weights of a model folder or a safetensors file. Raises WeightsError."""
        self.weights = tensors(open_causal_vae(source, self.config))

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
            weights[name] = ms.Tensor.from_numpy(value)
        return cls(config, weights)

    def save_pretrained(self, folder: str | Path, dtype: str = "float32") -> None:
        """Write config.json and diffusion_pytorch_model.safetensors, which the reference loads as well."""
        save_weights(
            folder,
            asdict(self.config),
            {name: value.asnumpy() for name, value in self.weights.items()},
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
        if self.tiling is not None and self.tiling.splits(video.shape[2:]):
            latents = self.tiling.in_latents(self.config.strides)
            return Posterior(self._tiled(self._encoder, video, self.tiling, latents))
        return Posterior(self._apply(self._encoder, video))

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape (B, C, T, h, w) of the latents of a video (B, 3, F, H, W)."""
        return (shape[0], self.config.embed_dim, *self.config.strides.latent_size(shape[2:], partial=False))

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, T, h, w) -> (B, 3, F, H, W), about [-1, 1]; of the release 4x8x8 larger, F = 4*T - 3."""
        if self.tiling is not None:
            tiles = self.tiling.in_latents(self.config.strides)
            if tiles.splits(latents.shape[2:]):
                return self._tiled(self._decoder, latents, tiles, self.tiling)
        return self._apply(self._decoder, latents)

    def forward_with_tape(
        self, video: Tensor, noise: Tensor = None, freeze_encoder: bool = False, decoder_noise: Tensor = None
    ) -> tuple[Tensor, Posterior, Tape]:
        """Reconstruction (B, 3, F, H, W), posterior, and the tape for gradients.

        noise: (B, C, T, h, w) to sample latents with; None decodes the posterior's mode. freeze_encoder: the
        tape begins at the posterior. decoder_noise: (B, C, T, h, w), added to the latents before decoding.
        """
        tape = Tape(self.weights)
        moments = self._chain(Forward(self.weights) if freeze_encoder else tape, self._encoder, video)
        latents = tape(_mode, "", moments) if noise is None else tape(_sample, "", moments, noise)
        if decoder_noise is not None:
            latents = tape(_noisy, "", latents, decoder_noise)
        return self._chain(tape, self._decoder, latents), Posterior(moments), tape

    def value_and_grad(
        self, loss_of_output: Callable[[Tensor, Posterior], Tensor], video: Tensor, noise: Tensor = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar loss_of_output(reconstruction, posterior), and its gradient by weight name."""
        reconstruction, posterior, tape = self.forward_with_tape(video, noise)
        loss, (by_reconstruction, by_moments) = ms.value_and_grad(
            lambda r, m: loss_of_output(r, Posterior(m)), (0, 1)
        )(reconstruction, posterior.moments)
        gradients, _ = tape.gradients([(reconstruction, by_reconstruction), (posterior.moments, by_moments)])
        return loss, gradients

    def _apply(self, layers: list[Layer], x: Tensor) -> Tensor:
        if not self.policy.chunked:
            return self._chain(Forward(self.weights), layers, x)
        with Workspace(self.policy.storage) as workspace:
            groups = self.config.norm_num_groups
            return ms.Tensor.from_numpy(
                run_chunked(layers, self.weights, x.asnumpy(), groups, workspace, self.sharing)
            )

    def _tiled(self, layers: list[Layer], x: Tensor, tiles: Tiling, out: Tiling) -> Tensor:
        def network(tile: np.ndarray) -> np.ndarray:
            return np.asarray(self._chain(Forward(self.weights), layers, ms.Tensor(tile)).asnumpy())

        return ms.Tensor(tiled(network, x.asnumpy(), tiles, out))

    def _chain(self, run: Forward, layers: list[Layer], video: Tensor) -> Tensor:
        batch = video.shape[0]
        x = run(_to_frames, "", video)
        for layer in layers:
            x = run(BLOCKS[layer.kind.block], layer.prefix, x, batch, self.config.norm_num_groups)
        return run(_to_video, "", x, batch)
