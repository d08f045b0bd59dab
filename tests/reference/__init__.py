"""Reference tensors written by the reference; never regenerated here."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

FOLDER = Path(__file__).parent


def load(name: str) -> dict[str, np.ndarray]:
    """The tensors of `<name>.safetensors`; float16 storage holds exact values and becomes float32."""
    tensors = load_file(FOLDER / f"{name}.safetensors")
    return {
        key: value.astype(np.float32) if value.dtype == np.float16 else value
        for key, value in tensors.items()
    }


def read_json(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())
