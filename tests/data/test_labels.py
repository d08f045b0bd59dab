"""Names of classes: files of them, those of data sets, and their labels."""

from pathlib import Path

import numpy as np
import pytest

from opensora.data.labels import ClassLabels, NoLabels, find_class_names, read_class_names


class Listed:
    """A data set of captions alone."""

    encoded = False

    def __init__(self, *captions: tuple[str, ...]) -> None:
        self.items = captions

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        return f"file {index}"

    def captions(self, index: int) -> tuple[tuple[str, ...], int]:
        return self.items[index], 0

    def visual(self, index: int, rng: np.random.Generator) -> np.ndarray:
        raise AssertionError


def test_labels_are_the_places_of_sorted_names() -> None:
    names = find_class_names([Listed(("Basketball",), ("Archery",)), Listed(("Archery",), ("basketball",))])
    assert names == ("Archery", "Basketball", "basketball")
    labels = ClassLabels(names)(["basketball", "", "Archery"], 0)
    assert labels["labels"].tolist() == [[2], [3], [0]] and labels["text_mask"].shape == (3, 1)
    assert ClassLabels(names).fault("Bowling", 0) == "the class 'Bowling' is unknown"
    assert NoLabels()(["anything", ""], 0)["labels"].tolist() == [[0], [0]]


@pytest.mark.parametrize("text", ["Archery\nBowling\n", "1 Archery\n2 Bowling\n", "Archery\n\nBowling"])
def test_lists_of_names(text: str, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text(text)
    assert read_class_names(tmp_path / "names.txt") == ("Archery", "Bowling")


def test_names_with_spaces_keep_their_numbers_unless_all_have_one(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("3 wheeler\ncar\n")
    assert read_class_names(tmp_path / "names.txt") == ("3 wheeler", "car")


def test_faults(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a\nb\na\n")
    with pytest.raises(ValueError, match="the class 'a' twice"):
        read_class_names(tmp_path / "names.txt")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match="names no class"):
        read_class_names(tmp_path / "empty.txt")
    with pytest.raises(ValueError, match="file 1 has 2 classes"):
        find_class_names([Listed(("a",), ("a", "b"))])
    with pytest.raises(ValueError, match=r"file 0 has 0 classes: .* --train_classcondition false"):
        find_class_names([Listed(("",))])
