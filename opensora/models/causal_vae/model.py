"""CausalVAE: videos to latents and back, 4x8x8 smaller, by causal convolutions (Open-Sora-Plan v1.1.0)."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from opensora.engine.block import Block
from opensora.engine.mindspore import Forward, Tape
from opensora.models.causal_vae.blocks import KINDS, Shapes
from opensora.models.causal_vae.chunked import run_chunked
from opensora.models.causal_vae.config import CausalVAEConfig, Layer, decoder_layers, encoder_layers
from opensora.models.causal_vae.frames import Workspace
from opensora.models.causal_vae.memory import SHARE, WAYS, choose
from opensora.models.causal_vae.tiling import Tiling, tiled_decode, tiled_encode
from opensora.models.initial import uniform
from opensora.nn.convolution import from_frames, to_frames
from opensora.nn.exchange import Turns
from opensora.nn.on_demand import tensors
from opensora.runtime import device, free_memory, mindspore
from opensora.weights import TensorSource, load_config, open_weights, save_weights

ms = mindspore()
ops = ms.ops

INITIAL_LOGVAR = -6.0


def weight_shapes(config: CausalVAEConfig) -> Shapes:
    """Every weight's name and shape."""
    layers = (*encoder_layers(config), *decoder_layers(config))
    return {
        f"{layer.prefix}.{name}": shape
        for layer in layers
        for name, shape in KINDS[layer.kind].shapes(layer.channels_in, layer.channels_out).items()
    }


@dataclass(frozen=True)
class Posterior:
    """The Gaussian over latents that the encoder gives; `moments` (B, 2*C, T, H, W): mean, then log-variance as the network wrote them."""

    moments: Any

    @property
    def mean(self) -> Any:
        return ops.chunk(self.moments, 2, 1)[0]

    @property
    def logvar(self) -> Any:
        return ops.clamp(ops.chunk(self.moments, 2, 1)[1], -30.0, 20.0)

    def mode(self) -> Any:
        return self.mean

    def sample(self, noise: Any) -> Any:
        """mean + std * noise; noise of unit variance, (B, C, T, H, W)."""
        return _sample({}, self.moments, noise)

    def kl(self) -> Any:
        """KL divergence to the unit Gaussian, summed over channels, time and height as the reference does: (B, W)."""
        return gaussian_kl(self.moments)


def gaussian_kl(moments: Any) -> Any:
    """`Posterior.kl` of moments (B, 2*C, T, H, W): (B, W)."""
    mean, logvar = ops.chunk(moments, 2, 1)
    logvar = ops.clamp(logvar, -30.0, 20.0)
    return 0.5 * ops.sum(mean * mean + ops.exp(logvar) - 1.0 - logvar, (1, 2, 3))


def _frames_block(weights: Any, video: Any) -> Any:
    return to_frames(video)


def _video_block(weights: Any, x: Any, batch: int) -> Any:
    return from_frames(x, batch)


def _sample_block(weights: Any, moments: Any, noise: Any) -> Any:
    mean, logvar = ops.chunk(moments, 2, 1)
    return mean + ops.exp(0.5 * ops.clamp(logvar, -30.0, 20.0)) * ops.stop_gradient(noise)


def _mode_block(weights: Any, moments: Any) -> Any:
    return ops.chunk(moments, 2, 1)[0]


def _disturbed_block(weights: Any, latents: Any, disturbance: Any) -> Any:
    return latents + ops.stop_gradient(disturbance)


_to_frames, _to_video, _sample, _mode = (
    Block(_frames_block),
    Block(_video_block),
    Block(_sample_block),
    Block(_mode_block),
)
_disturbed = Block(_disturbed_block)


def open_causal_vae(source: str | Path, config: CausalVAEConfig) -> TensorSource:
    """The weights of a CausalVAE, of any publisher's file or a checkpoint of ours, without its training loss's. Raises WeightsError."""
    return open_weights(source, expected=weight_shapes(config), ignore=("loss.",))


class CausalVAE:
    """The autoencoder: a config and a dict of weights under the release's names."""

    def __init__(self, config: CausalVAEConfig, weights: dict[str, Any]) -> None:
        self.config = config
        self.weights = weights
        self.tiling: Tiling | None = None
        self._memory = "auto"
        self.turns = Turns()
        """How several devices share the chunks of a video, where memory is "chunked"."""
        self._encoder, self._decoder = encoder_layers(config), decoder_layers(config)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **overrides: Any) -> "CausalVAE":
        """Load `<folder>/config.json` and its safetensors; a published file's `loss.*` weights are ignored. Raises WeightsError."""
        config = CausalVAEConfig.from_dict({**load_config(folder), **overrides})
        vae = cls(config, {})
        vae.load_weights(folder)
        return vae

    def load_weights(self, source: str | Path) -> None:
        """Take the weights of a model folder or a safetensors file. Raises WeightsError."""
        self.weights = tensors(open_causal_vae(source, self.config))

    @classmethod
    def initialise(cls, config: CausalVAEConfig, rng: np.random.Generator) -> "CausalVAE":
        """Fresh weights: convolutions keep the variance of their input, residual branches end in zeros (arXiv:1901.09321), so that
        training starts with a short chain, and latents have little noise, since with unit noise a fresh autoencoder has to learn to be
        heard before it learns anything else."""
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
        """Write config.json and diffusion_pytorch_model.safetensors, which `from_pretrained` and the PyTorch original load."""
        save_weights(
            folder,
            asdict(self.config),
            {name: value.asnumpy() for name, value in self.weights.items()},
            dtype=dtype,
        )

    @property
    def memory(self) -> str:
        """How `encode` and `decode` compute what is not tiled: "exact", the whole video in compiled blocks; "chunked", equal but for
        rounding, layer by layer over chunks of frames, beyond a share of the free memory with a scratch file; "auto", see `choose`.
        """
        return self._memory

    @memory.setter
    def memory(self, way: str) -> None:
        if way not in WAYS:
            raise ValueError(f"memory {way!r} is unknown: choose one of {', '.join(WAYS)}, or set tiling")
        self._memory = way

    def encode(self, video: Any) -> Posterior:
        """(B, 3, F, H, W) in [-1, 1] -> the posterior over (B, 4, (F+3)//4, H/8, W/8). ValueError for sizes off the stride."""
        stride = self.config.space_stride
        if video.shape[3] % stride or video.shape[4] % stride:
            raise ValueError(
                f"the frames are {video.shape[3]}x{video.shape[4]}: height and width must be multiples of {stride}"
            )
        if self.tiling is not None and self.tiling.splits_video(video.shape):
            return Posterior(
                ms.Tensor(
                    tiled_encode(lambda tile: self._encode(Forward(self.weights), tile), video, self.tiling)
                )
            )
        return Posterior(self._apply(self._encoder, video))

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the latents of a video (B, 3, F, H, W)."""
        space, time = self.config.space_stride, self.config.time_stride
        return (
            shape[0],
            self.config.embed_dim,
            (shape[2] - 1) // time + 1,
            shape[3] // space,
            shape[4] // space,
        )

    def decode(self, latents: Any) -> Any:
        """(B, 4, T, h, w) -> (B, 3, 4*T-3, 8*h, 8*w), about [-1, 1]."""
        if self.tiling is not None and self.tiling.splits_latents(latents.shape):
            return ms.Tensor(
                tiled_decode(lambda tile: self._decode(Forward(self.weights), tile), latents, self.tiling)
            )
        return self._apply(self._decoder, latents)

    def forward_with_tape(
        self, video: Any, noise: Any = None, freeze_encoder: bool = False, disturbance: Any = None
    ) -> tuple[Any, Posterior, Tape]:
        """Reconstruction, posterior, and the tape that walks back; the latents are the mode, or a sample where noise is given.

        freeze_encoder: the tape begins at the posterior. disturbance: added to the latents that are decoded, of their shape.
        """
        tape = Tape(self.weights)
        moments = self._encode(Forward(self.weights) if freeze_encoder else tape, video)
        latents = tape(_mode, "", moments) if noise is None else tape(_sample, "", moments, noise)
        if disturbance is not None:
            latents = tape(_disturbed, "", latents, disturbance)
        return self._decode(tape, latents), Posterior(moments), tape

    def value_and_grad(
        self, loss_of_output: Callable[[Any, Posterior], Any], video: Any, noise: Any = None
    ) -> tuple[Any, dict[str, Any]]:
        """The scalar loss_of_output(reconstruction, posterior) and its gradient by every weight, under the same names."""
        reconstruction, posterior, tape = self.forward_with_tape(video, noise)
        loss, (by_reconstruction, by_moments) = ms.value_and_grad(
            lambda r, m: loss_of_output(r, Posterior(m)), (0, 1)
        )(reconstruction, posterior.moments)
        gradients, _ = tape.gradients([(reconstruction, by_reconstruction), (posterior.moments, by_moments)])
        return loss, gradients

    def _encode(self, run: Forward, video: Any) -> Any:
        return self._chain(run, self._encoder, video)

    def _decode(self, run: Forward, latents: Any) -> Any:
        return self._chain(run, self._decoder, latents)

    def _apply(self, layers: list[Layer], x: Any) -> Any:
        if choose(self._memory, device()) == "exact":
            return self._chain(Forward(self.weights), layers, x)
        with Workspace(int(SHARE * free_memory())) as workspace:
            groups = self.config.norm_num_groups
            return ms.Tensor.from_numpy(
                run_chunked(layers, self.weights, x.asnumpy(), groups, workspace, self.turns)
            )

    def _chain(self, run: Forward, layers: list[Layer], video: Any) -> Any:
        batch = video.shape[0]
        x = run(_to_frames, "", video)
        for layer in layers:
            x = run(KINDS[layer.kind].block, layer.prefix, x, batch, self.config.norm_num_groups)
        return run(_to_video, "", x, batch)
