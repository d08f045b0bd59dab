"""The state of an optimizer in one file per rank: `<prefix>optimizer-<rank>-of-<ranks>.safetensors`.

The optimizer has the moments of each group of weights as one flat vector. A rank's file holds its range of
the vector as `<moment>.<group>`, such as `exp_avg.0`; the ranges in the order of the ranks are the vector,
which may be padded at its end. The metadata `layout` lists names and shapes of the weights in each group, as
JSON: [[["a.weight", [2, 3]], ...], ...].
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from opensora.files import write_atomic
from opensora.weights.checkpoints import SHARD
from opensora.weights.files import Shapes, TensorFile, WeightsError
from opensora.weights.release import TensorSource

VECTOR = re.compile(r"(\w+)\.\d+")


def save_shard(
    folder: Path,
    rank: int,
    ranks: int,
    groups: Sequence[Shapes],
    parts: Sequence[Mapping[str, np.ndarray]],
    numbers: Mapping[str, np.ndarray],
    prefix: str = "",
) -> None:
    """Write the file of a rank.

    groups: names and shapes of the weights in each group.
    parts: this rank's range of each moment, for each group.
    numbers: values that are equal on all ranks, such as the number of steps.
    prefix: the start of the file's name, to tell several optimizers apart.
    """
    arrays = {name: np.asarray(value, order="C") for name, value in numbers.items()}
    arrays |= {
        f"{moment}.{i}": np.ascontiguousarray(part)
        for i, moments in enumerate(parts)
        for moment, part in moments.items()
    }
    layout = json.dumps([[[name, list(shape)] for name, shape in shapes.items()] for shapes in groups])
    content = save(arrays, {"layout": layout})
    path = folder / f"{prefix}optimizer-{rank}-of-{ranks}.safetensors"
    write_atomic(path, lambda file: file.write(content))


class ShardedState(TensorSource):
    """The state in the files of all ranks, under `<weight>.<moment>`. Each tensor is assembled on access.

    Raises WeightsError for a missing file, and for files that do not belong together.
    """

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self.files, groups = _open_shards(folder, prefix)
        first = self.files[0]
        # Numbers, such as the number of steps, are the same in every file.
        super().__init__(
            {
                name: (first, name, entry.shape)
                for name, entry in first.entries.items()
                if not VECTOR.fullmatch(name)
            }
        )
        self._vectors: dict[str, tuple[str, int]] = {}
        """The vector that contains each tensor, and the tensor's offset in it."""
        moments = sorted({match[1] for name in first.entries if (match := VECTOR.fullmatch(name))})
        for i, shapes in enumerate(groups):
            for moment in moments:
                vector, start = f"{moment}.{i}", 0
                if vector not in first.entries:
                    continue  # a group without this moment
                for name, shape in shapes.items():
                    self.shapes[f"{name}.{moment}"] = shape
                    self._vectors[f"{name}.{moment}"] = vector, start
                    start += prod(shape)
                lengths = [
                    prod(file.entries[vector].shape) if vector in file.entries else 0 for file in self.files
                ]
                if sum(lengths) < start:
                    raise WeightsError(
                        f"{folder}: the parts of {vector} hold {sum(lengths)} of {start} values: "
                        "copy all files again"
                    )
        self.dtypes |= dict.fromkeys(self._vectors, "F32")

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._vectors:
            return super().__getitem__(name)
        (vector, start), shape = self._vectors[name], self.shapes[name]
        stop, first, parts = start + prod(shape), 0, []
        for file in self.files:
            length = prod(file.entries[vector].shape)
            low, high = max(start - first, 0), min(stop - first, length)
            if low < high:
                parts.append(file.read_range(vector, low, high))
            first += length
        return np.concatenate(parts).reshape(shape) if parts else np.zeros(shape, np.float32)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def sharded_states(names: Iterable[str]) -> set[str]:
    """The prefixes of optimizers with more than one file among `names`."""
    return {match[1] for name in names if (match := SHARD.fullmatch(name)) and match[3] != "1"}


def _open_shards(folder: Path, prefix: str) -> tuple[list[TensorFile], list[Shapes]]:
    found = [
        match for path in folder.iterdir() if (match := SHARD.fullmatch(path.name)) and match[1] == prefix
    ]
    counts = {int(match[3]) for match in found}
    if len(counts) != 1:
        content = f"no {prefix}optimizer-<rank>-of-<ranks>.safetensors"
        if counts:
            content = f"files of runs with {sorted(counts)} ranks"
        raise WeightsError(f"{folder} holds {content}: name the folder of one checkpoint")
    ranks = counts.pop()
    present = {int(match[2]) for match in found}
    missing = next((rank for rank in range(ranks) if rank not in present), None)
    if missing is not None:
        name = f"{prefix}optimizer-{missing}-of-{ranks}.safetensors"
        raise WeightsError(f"{folder} lacks {name}: copy the files of all {ranks} ranks into it")
    files = [TensorFile(folder / f"{prefix}optimizer-{rank}-of-{ranks}.safetensors") for rank in range(ranks)]
    layouts = []
    for file in files:
        with safe_open(file.path, framework="np") as opened:
            layouts.append((opened.metadata() or {}).get("layout"))
    if layouts[0] is None or any(layout != layouts[0] for layout in layouts):
        raise WeightsError(
            f"{folder}: the optimizer's files differ in their layout of weights: copy the checkpoint again"
        )
    try:
        return files, [
            {str(name): tuple(map(int, shape)) for name, shape in group} for group in json.loads(layouts[0])
        ]
    except (ValueError, TypeError) as error:
        raise WeightsError(
            f"{files[0].path} is damaged (its layout cannot be read): copy the checkpoint again"
        ) from error
