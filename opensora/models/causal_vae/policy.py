"""How an autoencoder bounds the memory of `encode` and `decode`, chosen once. Does not import MindSpore."""

from dataclasses import dataclass
from typing import Any

from opensora.models.causal_vae.tiling import UNBOUNDED, Tiling
from opensora.runtime import free_memory

MODES = ("auto", "exact", "chunked", "tiled")
SHARE, STORED = 0.6, 3 * 2**29
"""Activations go to a scratch file beyond this share of the free memory, and beyond so many bytes."""
SMALL = 2**30
"""Bytes of activations of a video that is not worth chunks where whole networks compile quickly."""


@dataclass(frozen=True)
class VAEPolicy:
    """How a video goes through the autoencoder.

    chunked: layer by layer over chunks of frames, instead of the whole video in compiled blocks; only
    rounding differs. tiling: tiles for larger videos, as the reference has them; the result differs at the
    seams. budget: bytes of activations that chunks keep in memory; more goes to a scratch file. By default
    STORED, or a share of the memory that is free at the time if that is less. small: a video with up to so
    many bytes of activations goes whole all the same. engine: the one that computes, which decides how many
    bytes these are.
    """

    chunked: bool
    tiling: Tiling | None = None
    budget: int | None = None
    small: int = 0
    engine: str = "mindspore"

    @classmethod
    def choose(
        cls,
        device: str,
        mode: str = "auto",
        *,
        engine: str = "mindspore",
        enable_tiling: bool = False,
        enable_time_chunk: bool = False,
        overlap: float = 0.25,
    ) -> "VAEPolicy":
        """The policy of command-line options; mode: `vae_memory`, one of MODES.

        "auto" means chunks on a CPU, which take less memory; other devices would wait for the host. With the
        engine OpenVINO, small videos go whole.
        Raises ValueError for options that exclude each other.
        """
        if mode not in MODES:
            raise ValueError(f"vae_memory {mode!r} is unknown: choose one of {', '.join(MODES)}")
        if not 0 <= overlap < 1:
            raise ValueError(f"tile_overlap_factor {overlap} is outside 0 to 1: use 0.25")
        if (enable_tiling or enable_time_chunk) and mode in ("exact", "chunked"):
            raise ValueError(
                f"--vae_memory {mode} works without tiles: leave out --enable_tiling and --enable_time_chunk"
            )
        tiling = None
        if enable_tiling or mode == "tiled":
            tiling = Tiling(overlap=overlap)
        elif enable_time_chunk:
            tiling = Tiling(size=UNBOUNDED, overlap=overlap)
        small = SMALL if mode == "auto" and engine == "openvino" and tiling is None else 0
        chunked = mode == "chunked" or (mode != "exact" and device == "CPU")
        return cls(chunked, tiling, small=small, engine=engine)

    def in_chunks(self, activations: int) -> bool:
        """True if a video with so many bytes of activations goes through the layers in chunks."""
        return self.chunked and activations > self.small

    @property
    def storage(self) -> int:
        """Bytes of activations that chunks may keep in memory now."""
        return min(STORED, int(SHARE * free_memory())) if self.budget is None else self.budget

    def recipe(self, activations: int | None = None) -> dict[str, Any]:
        """The part of the policy that the last digits of a result depend on, by the names of the options.

        activations: of the video; None for videos of any size.
        """
        tiling = self.tiling
        return {
            "vae_memory": None if tiling else self._mode(activations),
            "enable_tiling": tiling is not None and tiling.size != UNBOUNDED,
            "enable_time_chunk": tiling is not None and tiling.size == UNBOUNDED,
            "tile_overlap_factor": None if tiling is None else tiling.overlap,
        }

    def _mode(self, activations: int | None) -> str:
        if activations is None and self.small:
            return "auto"
        in_chunks = self.chunked if activations is None else self.in_chunks(activations)
        return "chunked" if in_chunks else "exact"
