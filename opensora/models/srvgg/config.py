"""Sizes of Real-ESRGAN's SRVGGNetCompact and the names and shapes of its weights, as in the published files.

Loads without MindSpore.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

from opensora.weights.files import Shapes

PACKAGED = Path(__file__).parent / "realesr_animevideov3" / "model.safetensors"
"""The weights that ship: realesr-animevideov3 (NOTICE names its authors)."""


@dataclass(frozen=True)
class SRVGGConfig:
    """The defaults are those of the packaged weights."""

    num_feat: int = 64
    """Channels between the convolutions."""
    num_conv: int = 16
    """Convolutions beside the first and the last one."""
    upscale: int = 4

    @classmethod
    def of_shapes(cls, shapes: Mapping[str, tuple[int, ...]]) -> "SRVGGConfig | None":
        """The sizes of a network with weights of these shapes; None if it is another network."""
        convolutions = [name for name, shape in shapes.items() if len(shape) == 4]
        last = f"body.{2 * len(convolutions) - 2}.weight"
        if "body.0.weight" not in convolutions or last not in convolutions:
            return None
        factor = isqrt(shapes[last][0] // 3)
        return cls(shapes["body.0.weight"][0], len(convolutions) - 2, max(factor, 1))

    @property
    def margin(self) -> int:
        """Pixels of the input on each side that a pixel of the result depends on."""
        return self.num_conv + 2


def weight_shapes(config: SRVGGConfig) -> Shapes:
    """Shape of every weight by its name in the published files."""
    shapes: Shapes = {}
    last = config.num_conv + 1
    for number in range(last + 1):
        name = f"body.{2 * number}"
        outputs = 3 * config.upscale**2 if number == last else config.num_feat
        shapes[f"{name}.weight"] = (outputs, config.num_feat if number else 3, 3, 3)
        shapes[f"{name}.bias"] = (outputs,)
        if number < last:
            shapes[f"body.{2 * number + 1}.weight"] = (config.num_feat,)
    return shapes
