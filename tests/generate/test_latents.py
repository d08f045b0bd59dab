"""Saved latents are taken only if they are those that were saved."""

import json
from pathlib import Path

import numpy as np
import pytest

from opensora.generate.latents import latents_content, read_latents, write_latents

SHAPE = (4, 2, 3, 3)


def save(path: Path, latents: np.ndarray) -> Path:
    content, digest = latents_content(latents)
    write_latents(path, content)
    path.with_suffix(".json").write_text(json.dumps({"sha256": digest}))
    return path


def test_what_was_saved_is_read(tmp_path: Path) -> None:
    latents = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    np.testing.assert_array_equal(read_latents(save(tmp_path / "a.npy", latents), SHAPE), latents)


@pytest.mark.parametrize(
    ("latents", "fault"),
    [
        (np.full(SHAPE, np.nan, np.float32), "holds NaN or infinite values"),
        (np.full(SHAPE, np.inf, np.float32), "holds NaN or infinite values"),
        (
            np.zeros((4, 0, 3, 3), np.float32),
            r"has the shape \[4, 0, 3, 3\], but this video needs \[4, 2, 3, 3\]",
        ),
        (np.zeros((1, *SHAPE), np.float32), "has the shape"),
        (np.float32(3), "has the shape"),
        (np.zeros(SHAPE, np.complex64), "holds no floating point array"),
        (np.zeros(SHAPE, np.int8), "holds no floating point array"),
        (np.zeros(SHAPE, "U3"), "holds no floating point array"),
        (np.zeros(SHAPE, object), "is damaged"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, latents: np.ndarray, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        read_latents(save(tmp_path / "a.npy", np.asarray(latents)), SHAPE)


@pytest.mark.parametrize("cut", [0, 5, 60, 100, 200])
def test_a_cut_file_is_refused(tmp_path: Path, cut: int) -> None:
    path = save(tmp_path / "a.npy", np.zeros(SHAPE, np.float32))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"a\.npy is damaged .*: make them again with --save_latents"):
        read_latents(path, SHAPE)


def test_a_changed_file_is_refused_and_a_claimed_size_is_not_allocated(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npy", np.zeros(SHAPE, np.float32))
    content = path.read_bytes()
    path.write_bytes(content[:-2] + b"\x80\x3f")
    with pytest.raises(ValueError, match="was changed after it was saved"):
        read_latents(path, SHAPE)
    path.write_bytes(content.replace(b"(4, 2, 3, 3)", b"(4, 9999999,"[:11] + b")"))
    with pytest.raises(ValueError, match="is damaged"):
        read_latents(path, SHAPE)
