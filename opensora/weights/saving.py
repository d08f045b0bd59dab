"""Save configurations and weights in the layout of the release."""

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from opensora.files import write_atomic
from opensora.weights.files import DTYPES, WeightsError, is_finite, to_bfloat16
from opensora.weights.release import FLOATING, TensorSource

STORAGE = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
LARGEST = {"F32": 3.4028234e38, "F16": 65504.0, "BF16": 3.3895313e38}
CODES = {np.dtype(dtype): code for code, dtype in DTYPES.items() if code != "BF16"}


def save_weights(
    folder: str | Path,
    config: Mapping[str, Any],
    weights: Mapping[str, np.ndarray],
    stem: str = "diffusion_pytorch_model",
    dtype: str = "float32",
) -> None:
    """Write `folder`/config.json and `folder`/<stem>.safetensors. Raises the errors of `save_tensors`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / f"{stem}.safetensors", weights, dtype)
    save_config(folder, config)


def save_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write `folder`/config.json."""
    write_atomic(
        folder / "config.json", lambda file: file.write((json.dumps(dict(config), indent=2) + "\n").encode())
    )


def save_tensors(path: Path, weights: Mapping[str, np.ndarray], dtype: str = "float32") -> None:
    """Write a safetensors file. A TensorSource is read one tensor at a time.

    dtype: "float32", "float16" or "bfloat16" for floating tensors; others keep their type. Raises ValueError
    for another dtype, and WeightsError for values that are not finite or overflow the dtype.
    """
    if dtype not in STORAGE:
        raise ValueError(f"dtype {dtype!r} is unknown: choose one of {', '.join(STORAGE)}")
    if isinstance(weights, TensorSource):
        weights.check_dtypes()
        kinds = {name: STORAGE[dtype] if kind in FLOATING else kind for name, kind in weights.dtypes.items()}
        entries = {name: (kinds[name], shape) for name, shape in weights.shapes.items()}
    else:
        entries = {
            name: (STORAGE[dtype] if a.dtype.kind == "f" else CODES[a.dtype], a.shape)
            for name, a in weights.items()
        }
    write_atomic(path, lambda file: _write_tensors(file, entries, weights))


def _write_tensors(
    file: BinaryIO, entries: Mapping[str, tuple[str, tuple[int, ...]]], weights: Mapping[str, np.ndarray]
) -> None:
    """The format: length of the header, header padded to a multiple of 8 bytes, bytes of each tensor."""
    item_sizes = {name: np.dtype(DTYPES[kind]).itemsize for name, (kind, _) in entries.items()}
    # Wide types first, so that every tensor is aligned to its item size.
    order = sorted(entries, key=lambda name: (-item_sizes[name], name))
    # The reference refuses a file that does not say which framework's layout it has.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in order:
        kind, shape = entries[name]
        end = offset + prod(shape) * item_sizes[name]
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    file.write(len(encoded).to_bytes(8, "little") + encoded)
    for name in order:
        file.write(_stored(name, weights[name], entries[name][0]).data)


def _stored(name: str, value: np.ndarray, kind: str) -> np.ndarray:
    if value.dtype.kind != "f":
        return np.ascontiguousarray(value)
    if not is_finite(value):
        raise WeightsError(
            f"{name} holds NaN or infinite values and was not saved: go back to an earlier checkpoint"
        )
    if value.size and max(value.max(), -value.min()) > LARGEST[kind]:
        raise WeightsError(
            f"{name} has values beyond {LARGEST[kind]:g}, which {kind} cannot hold: save it as float32"
        )
    return to_bfloat16(value) if kind == "BF16" else np.ascontiguousarray(value, DTYPES[kind])
