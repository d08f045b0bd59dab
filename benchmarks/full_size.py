"""The release at its full size with random weights: one part of it in a process of its own, one line of JSON.

    python -m benchmarks.full_size denoise --weights_dtype fp32    one guided step of XL, 17x256x256
    python -m benchmarks.full_size denoise --precision bf16        the same in bfloat16, with OpenVINO
    python -m benchmarks.full_size decode                          the autoencoder, 17x256x256
    python -m benchmarks.full_size text --stored bfloat16          T5-XXL, two prompts, layer by layer

Each writes its weights in the release's layout (4, 1 and 10 to 19 GB) below --folder, after a look at the
free disk, and removes them. `load`, `run` and `again` (with --again, a second run) are seconds, with `_cpu`
those that the processor gave (on one quiet core about the same); `peak_mib` is the largest resident memory of
the process.
docs/results/full-size.md has figures.
"""

import argparse
import json
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from opensora.engine import ENGINE_CHOICES
from opensora.models.causal_vae.config import CausalVAEConfig
from opensora.models.causal_vae.config import weight_shapes as vae_shapes
from opensora.models.latte.config import LatteConfig
from opensora.models.latte.config import weight_shapes as latte_shapes
from opensora.models.spec import ModelSpec
from opensora.models.t5.config import T5Config
from opensora.models.t5.config import weight_shapes as t5_shapes
from opensora.pipeline import Pipeline
from opensora.weights import ModelFolder
from opensora.weights.files import to_bfloat16
from opensora.weights.folder import DEMO

LATTE = LatteConfig(sample_size=(32, 32), video_length=5)
KEYS = Path(__file__).parent.parent / "tests" / "reference" / "extras"
CODES = {"float32": ("F32", 4), "float16": ("F16", 2), "bfloat16": ("BF16", 2)}
BLOCK = 2**20  # random numbers that are repeated throughout a file
SHARD = 10 * 10**9  # bytes, as the published shards have
PROMPTS = ["an elephant on a sky blue background", "a ship sails through the night towards a lighthouse"]
Shapes = Mapping[str, tuple[int, ...]]


def write_weights(folder: Path, stem: str, shapes: Shapes, stored: str) -> None:
    """Random weights under these names in safetensors files of at most SHARD bytes, with an index where there
    are several.
    """
    code, width = CODES[stored]
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    size = 0
    for name, shape in shapes.items():
        if shards[-1] and size + prod(shape) * width > SHARD:
            shards.append({})
            size = 0
        shards[-1][name] = shape
        size += prod(shape) * width
    count = len(shards)
    names = (
        [f"{stem}.safetensors"]
        if count == 1
        else [f"{stem}-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    )
    blocks = Blocks(stored)
    for file_name, shard in zip(names, shards, strict=True):
        with open(folder / file_name, "wb") as file:
            _write_shard(file, shard, code, width, blocks)
    if count > 1:
        weight_map = {
            name: file_name for file_name, shard in zip(names, shards, strict=True) for name in shard
        }
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def _write_shard(file: BinaryIO, shapes: Shapes, code: str, width: int, blocks: "Blocks") -> None:
    header, offset = {}, 0
    for name, shape in shapes.items():
        end = offset + prod(shape) * width
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    file.write(len(encoded).to_bytes(8, "little") + encoded)
    for name, shape in shapes.items():
        block, left = blocks.of(name, shape), prod(shape) * width
        while left:
            left -= file.write(block[:left])


class Blocks:
    """Bytes of BLOCK random numbers of the deviation that a tensor needs to keep the scale of what passes
    through it.
    """

    def __init__(self, stored: str) -> None:
        self._stored = stored
        self._normal = np.random.default_rng(0).standard_normal(BLOCK).astype(np.float32)
        self._made: dict[tuple[float, float], memoryview] = {}

    def of(self, name: str, shape: tuple[int, ...]) -> memoryview:
        mean = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        deviation = 0.02 if len(shape) < 2 else prod(shape[1:]) ** -0.5
        if (mean, deviation) not in self._made:
            values = self._normal * np.float32(deviation) + np.float32(mean)
            halves = to_bfloat16(values) if self._stored == "bfloat16" else values.astype(self._stored)
            self._made[mean, deviation] = memoryview(halves).cast("B")
        return self._made[mean, deviation]


def write_release(folder: Path, part: str, stored: str) -> ModelFolder:
    """The release's layout in `folder`, of which only `part` has weights. OSError where the disk has no room
    for them.
    """
    shapes = {
        "transformer": latte_shapes(LATTE),
        "vae": vae_shapes(CausalVAEConfig()),
        "text_encoder": t5_shapes(T5Config()),
    }
    needed = CODES[stored][1] * sum(map(prod, shapes[part].values()))
    free = shutil.disk_usage(folder).free
    if free < 1.1 * needed:
        raise OSError(
            f"{folder} has {free / 1e9:.1f} GB free, {1.1 * needed / 1e9:.1f} are needed: "
            "name another place with --folder"
        )
    model = ModelFolder(folder, folder / "17x256x256", folder / "vae", folder / "text_encoder")
    configs = {
        model.transformer: LATTE.to_dict(),
        model.vae: {"_class_name": "CausalVAEModel", **asdict(CausalVAEConfig())},
        folder / "text_encoder": {"architectures": ["T5EncoderModel"], **asdict(T5Config())},
    }
    for place, config in configs.items():
        place.mkdir()
        (place / "config.json").write_text(json.dumps(config))
    shutil.copy(DEMO / "text_encoder" / "spiece.model", folder / "text_encoder")
    place, stem = {
        "transformer": (model.transformer, "diffusion_pytorch_model"),
        "vae": (model.vae, "diffusion_pytorch_model"),
        "text_encoder": (folder / "text_encoder", "model"),
    }[part]
    write_weights(place, stem, shapes[part], stored)
    return model


def check_names() -> None:
    """The names and shapes that were written are the release's."""
    for keys, shapes in (
        ("latte_xl122_keys", latte_shapes(LATTE)),
        ("causalvae_v11_keys", vae_shapes(CausalVAEConfig())),
    ):
        published = {
            name: tuple(shape) for name, shape in json.loads((KEYS / f"{keys}.json").read_text()).items()
        }
        kept = {name: shape for name, shape in published.items() if not name.startswith("loss.")}
        assert kept == dict(shapes), keys


def text(pipe: Pipeline) -> tuple[Callable[[], object], Callable[[], np.ndarray]]:
    return pipe.text.get, lambda: pipe.encode(PROMPTS)[0]


def denoise(pipe: Pipeline) -> tuple[Callable[[], object], Callable[[], np.ndarray]]:
    rng = np.random.default_rng(0)
    embeds = rng.standard_normal((2, 1, LATTE.model_max_length, LATTE.caption_channels)).astype(np.float32)
    mask = np.ones(embeds.shape[1:3], np.float32)
    noise = rng.standard_normal((1, 4, 5, 32, 32)).astype(np.float32)

    def run() -> np.ndarray:
        latents = pipe.denoise(embeds[1], mask, embeds[0], mask, noise, sampler="DDIM", steps=1)
        return latents.asnumpy()

    return pipe.transformer.get, run


def decode(pipe: Pipeline) -> tuple[Callable[[], object], Callable[[], np.ndarray]]:
    latents = np.random.default_rng(0).standard_normal((1, 4, 5, 32, 32)).astype(np.float32)
    return pipe.vae.get, lambda: pipe.decode(latents).asnumpy()


class Mark:
    """A moment: wall time, and the time that all cores gave this process."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()


PARTS = {"text": (text, "text_encoder"), "denoise": (denoise, "transformer"), "decode": (decode, "vae")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--stored", choices=CODES, default="float32", help="how the files hold the weights")
    parser.add_argument(
        "--weights_dtype",
        choices=("fp32", "fp16", "bf16"),
        default="fp32",
        help="how the transformer's are kept in memory",
    )
    parser.add_argument("--engine", choices=ENGINE_CHOICES, default="auto")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument(
        "--folder",
        default=tempfile.gettempdir(),
        help="where the files are written, in a folder of their own",
    )
    parser.add_argument("--again", action="store_true", help="run twice: the second run compiles nothing")
    options = parser.parse_args()
    check_names()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the files go then, too
    stages, part = PARTS[options.part]
    with tempfile.TemporaryDirectory(prefix="opensora-full-size-", dir=options.folder) as folder:
        model = write_release(Path(folder), part, options.stored)
        load, run = stages(
            Pipeline(
                ModelSpec.read(model),
                engine=options.engine,
                precision=options.precision,
                weights_dtype=options.weights_dtype,
                resident=False,
            )
        )
        marks = [Mark()]
        load()
        marks.append(Mark())
        for _ in range(2 if options.again else 1):
            result = run()
            marks.append(Mark())
        assert np.isfinite(result).all() and result.std() > 0
    line = {
        "part": options.part,
        "stored": options.stored,
        "weights_dtype": options.weights_dtype,
        "shape": result.shape,
    }
    names = ("load", "run", "again")[: len(marks) - 1]
    for name, (before, after) in zip(names, pairwise(marks), strict=True):
        line |= {name: round(after.wall - before.wall, 1), f"{name}_cpu": round(after.cpu - before.cpu, 1)}
    print(json.dumps(line | {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))


if __name__ == "__main__":
    main()
