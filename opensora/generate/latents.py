"""Latents in files between `generate --save_latents` and `--decode_latents`: written with a digest, and
checked.
"""

import hashlib
import io
from pathlib import Path

import numpy as np

from opensora.files import hash_file, read_array, read_sidecar, write_atomic

REMEDY = "make them again with --save_latents"


def latents_content(latents: np.ndarray) -> tuple[bytes, str]:
    """The bytes of a .npy file of latents (C, T, h, w), and their sha256, which the sidecar keeps."""
    buffer = io.BytesIO()
    np.save(buffer, latents)
    return buffer.getvalue(), hashlib.sha256(buffer.getvalue()).hexdigest()


def write_latents(path: Path, content: bytes) -> None:
    """Write the bytes of `latents_content`."""
    write_atomic(path, lambda file: file.write(content))


def read_latents(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Saved latents (C, T, h, w).

    shape: what the video needs. Raises ValueError for a file that is damaged, differs from the digest in its
    sidecar, or holds another shape, other numbers, or values that are not finite.
    """
    stored = read_array(path, REMEDY)
    if stored.dtype.kind != "f":
        raise ValueError(f"{path} holds no floating point array: {REMEDY}")
    if stored.shape != shape:
        raise ValueError(
            f"{path} has the shape {list(stored.shape)}, but this video needs {list(shape)}: {REMEDY}"
        )
    digest = read_sidecar(path.with_suffix(".json")).get("sha256")
    if digest is not None and digest != hash_file(path):
        raise ValueError(f"{path} was changed after it was saved: {REMEDY}")
    latents = np.asarray(stored, np.float32)
    if not np.isfinite(latents).all():
        raise ValueError(f"{path} holds NaN or infinite values: {REMEDY}")
    return latents
