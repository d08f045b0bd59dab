"""The base of the transformers that denoise latents."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from opensora.engine import Engine, open_engine
from opensora.engine.block import as_array
from opensora.engine.tree import Tree
from opensora.nn import Tensor
from opensora.runtime import mindspore
from opensora.weights import save_weights

if TYPE_CHECKING:
    from opensora.engine.mindspore import Tape


class TransformerConfig(Protocol):
    """The configuration of a network."""

    @property
    def in_channels(self) -> int:
        """Channels of the latents."""

    @property
    def patch_size(self) -> int:
        """Height and width of a patch in latents."""

    def to_dict(self) -> dict[str, Any]:
        """The content of its config.json."""


C = TypeVar("C", bound=TransformerConfig)


class LatentTransformer(ABC, Generic[C]):
    """A transformer that denoises latents: its configuration, and its weights under the published names."""

    images_alone = "pass images alone as a video"
    """The remedy in an error for images without a video."""

    def __init__(self, config: C, weights: Mapping[str, Tensor], engine: Engine | None = None) -> None:
        """weights: a dict as the engine keeps it, or a mapping that makes each tensor when it is read
        (`OnDemand`).

        engine: what computes, by default MindSpore.
        """
        self.config = config
        self.weights = weights
        self.engine = engine or open_engine()

    def save_pretrained(self, folder: str | Path, dtype: str = "float32") -> None:
        """Write a folder that `from_pretrained` loads; the original reads its weights."""
        arrays = {name: as_array(value) for name, value in self.weights.items()}
        save_weights(folder, self.config.to_dict(), arrays, dtype=dtype)

    @abstractmethod
    def __call__(self, *inputs: Tree, **options: Tree) -> Tensor:
        """The noise and the logits of its variance. `tape=` records the call for gradients."""

    @abstractmethod
    def last_blocks(self, layers: int) -> set[str]:
        """The names of the blocks of the last `layers` layers."""

    def check_latents(self, latents: Tensor, num_images: int) -> None:
        """Raise ValueError for latents that this model does not take, and for a wrong number of images."""
        channels, size = self.config.in_channels, self.config.patch_size
        if latents.ndim != 5 or latents.shape[1] != channels:
            raise ValueError(
                f"latents have the shape {tuple(latents.shape)}: "
                f"this model takes (batch, {channels}, frames, height, width)"
            )
        height, width = latents.shape[3:]
        if height % size or width % size:
            raise ValueError(
                f"latents are {height}x{width}: height and width must be multiples of the patch size, {size}"
            )
        if not 0 <= num_images < latents.shape[2]:
            raise ValueError(
                f"num_images is {num_images}, but latents have {latents.shape[2]} frames and images: "
                f"{self.images_alone}"
            )

    def forward_with_tape(
        self, *inputs: Tree, num_no_recompute: int = 0, **options: Tree
    ) -> tuple[Tensor, "Tape"]:
        """Call the model and record a tape: `tape.gradients([(output, gradient)], wanted=[latents])`.

        inputs, options: those of a call.
        num_no_recompute: the number of layers, counted from the last, whose activations are saved. The
            backward pass does not compute these layers again.
        """
        tape = self.engine.tape(self.weights, self.last_blocks(num_no_recompute))
        return self(*inputs, tape=tape, **options), tape

    def value_and_grad(
        self, loss_of_output: Callable[[Tensor], Tensor], *inputs: Tree, **options: Tree
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar loss_of_output(output), and its gradients by the names of the weights used."""
        output, tape = self.forward_with_tape(*inputs, **options)
        loss, by_output = mindspore().value_and_grad(loss_of_output)(output)
        gradients, _ = tape.gradients([(output, by_output)])
        return loss, gradients
