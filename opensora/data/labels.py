"""Classes of samples: the captions of a data set are names of classes, and the labels are their numbers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from opensora.config_files import shown
from opensora.data.dataset import Dataset
from opensora.data.lists.lines import read_lines

MOST_CLASSES = 2**16


class ClassLabels:
    """Names of classes as labels; the empty name, which stands for a dropped one, is the null label."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._numbers = {name: number for number, name in enumerate(self.names)}

    def clean(self, caption: str) -> str:
        return caption.strip()

    def __call__(self, captions: Sequence[str], source: int) -> dict[str, np.ndarray]:
        """labels int32 (N, 1), and text_mask (N, 1) of ones.

        Raises ValueError for an unknown class.
        """
        numbers = [[self._number(caption)] for caption in captions]
        return {"labels": np.array(numbers, np.int32), "text_mask": np.ones((len(numbers), 1), np.int32)}

    def fault(self, caption: str, source: int) -> str:
        """The reason why a class cannot be trained on, or ""."""
        return "" if not caption or caption in self._numbers else f"the class {shown(caption)} is unknown"

    def require(self, caption: str) -> None:
        """Raise ValueError for an unknown class."""
        if fault := self.fault(caption, 0):
            raise ValueError(f"{fault}: this run has {len(self.names)} classes, such as {self.names[0]!r}")

    def _number(self, caption: str) -> int:
        self.require(caption)
        return self._numbers.get(caption, len(self.names))


class NoLabels(ClassLabels):
    """For an unconditional model: every sample has the label 0, whatever its caption."""

    def __init__(self) -> None:
        super().__init__(())

    def fault(self, caption: str, source: int) -> str:
        return ""


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """The names of classes in a text file, one a line, in the order of their labels.

    A number before the name is passed over, as UCF101's classInd.txt has it ("1 ApplyEyeMakeup").
    Raises ValueError for a file without names, and for a name that occurs twice.
    """
    lines = [line.strip() for line in read_lines(Path(path), "class list")]
    lines = [line for line in lines if line]
    words = [line.split(None, 1) for line in lines]
    numbered = bool(words) and all(len(pair) == 2 and pair[0].isdecimal() for pair in words)
    return _checked([pair[1] for pair in words] if numbered else lines, f"class list {path}")


def find_class_names(datasets: Sequence[Dataset]) -> tuple[str, ...]:
    """The classes of the items of data sets, sorted: as sorted folder names are the labels of UCF101.

    Raises ValueError for an item without a class or with several, and for too many classes.
    """
    found: set[str] = set()
    for dataset in datasets:
        for index in range(len(dataset)):
            captions, _ = dataset.captions(index)
            names = {caption.strip() for caption in captions}
            if len(names) != 1 or "" in names:
                raise ValueError(
                    f"{dataset.name(index)} has {len(names - {''})} classes: give each file one, or train "
                    "without classes, with --train_classcondition false"
                )
            found |= names
            if len(found) > MOST_CLASSES:
                raise ValueError(
                    f"the data has more than {MOST_CLASSES} classes, such as {shown(min(found))}: name the "
                    "column of the class with --class_column"
                )
    return _checked(sorted(found), "the data")


def _checked(names: list[str], where: str) -> tuple[str, ...]:
    if not names:
        raise ValueError(f"{where} names no class: write one a line")
    twice = [
        name for name, following in zip(sorted(names), sorted(names)[1:], strict=False) if name == following
    ]
    if twice:
        raise ValueError(f"{where} names the class {shown(twice[0])} twice: remove one")
    return tuple(names)
