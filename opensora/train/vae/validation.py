"""Validation of the autoencoder: PSNR on held-out clips, and a picture of their reconstructions."""

from pathlib import Path

import numpy as np

from opensora.media.pixels import to_bytes, to_pixels
from opensora.media.sheets import contact_sheet
from opensora.media.writer import write_video
from opensora.models.causal_vae.model import CausalVAE
from opensora.parallel.mesh import Mesh
from opensora.runtime import mindspore

ms = mindspore()

CLIPS_SHOWN = 6
FRAME_INTERVAL = 4
"""Every fourth frame of a clip is shown."""


class ReconstructionQuality:
    """PSNR of the reconstructions of `clips`, uint8 (T, H, W, 3) each, which the processes share out."""

    def __init__(self, clips: list[np.ndarray], mesh: Mesh) -> None:
        self._clips, self._mesh = clips, mesh

    def __call__(self, vae: CausalVAE, step: int, folder: Path) -> dict[str, float]:
        """The metric `validation_psnr` in dB.

        Rank 0 writes a picture of its first clips and their reconstructions.
        """
        errors, pairs = [], []
        for clip in self._clips[self._mesh.rank :: self._mesh.size]:
            video = to_pixels(clip[None])  # (1, 3, T, H, W)
            result = vae.decode(vae.encode(ms.Tensor(video)).mode()).asnumpy()
            errors.append(float(np.mean(np.square((np.clip(result, -1, 1) - video) / 2))))
            pairs.append((clip, to_bytes(result)[0]))
        errors = [error for rank in self._mesh.world.agree(errors) for error in rank]
        if self._mesh.is_first:
            _write_sheet(pairs[:CLIPS_SHOWN], folder / f"step-{step:08d}.png")
        return {"validation_psnr": float(-10 * np.log10(np.mean(errors)))}


def _write_sheet(pairs: list[tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """A row for each clip: its frames, then those of the reconstruction."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [np.concatenate((clip[::FRAME_INTERVAL], result[::FRAME_INTERVAL])) for clip, result in pairs]
    sheet = contact_sheet(np.concatenate(rows), columns=len(rows[0]))
    write_video(path, sheet[None], fps=1)
