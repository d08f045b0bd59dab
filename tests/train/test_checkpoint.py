import errno
import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opensora.train import checkpoint
from opensora.train.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from opensora.weights import WeightsError
from tests.weights.loading import load_weights

GROUPS = {
    "model": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "scalar": np.array(3.5, np.float32)},
    "ema": {"w": np.ones(2)},
}


class Killed(BaseException):
    """What no handler in the code under test catches."""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, 7, GROUPS, {"epoch": 2})
    assert folder == tmp_path / "checkpoints" / "step-00000007" == latest_checkpoint(tmp_path)
    assert names(folder) == {"model.safetensors", "ema.safetensors", "state.json", "manifest.json"}
    assert (tmp_path / "checkpoints" / "LATEST").read_text() == "step-00000007\n"
    groups, state = load_checkpoint(folder)
    assert state == {"step": 7, "epoch": 2} and groups.keys() == GROUPS.keys()
    for group, arrays in GROUPS.items():
        assert groups[group].keys() == arrays.keys()
        for name, value in arrays.items():
            np.testing.assert_array_equal(groups[group][name], value, strict=True)


def test_arrays_of_any_memory_order(tmp_path: Path) -> None:
    turned = np.arange(6.0).reshape(2, 3).T[:, ::-1]
    groups, _ = load_checkpoint(save_checkpoint(tmp_path, 1, {"model": {"w": turned}}, {}))
    np.testing.assert_array_equal(groups["model"]["w"], turned)


def test_a_run_without_checkpoints_has_no_latest(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None


@pytest.mark.parametrize("keep", [1, 3, 0])
def test_the_newest_are_kept(tmp_path: Path, keep: int) -> None:
    for step in (5, 10, 15, 20, 100000000):
        save_checkpoint(tmp_path, step, GROUPS, {}, keep)
    kept = ["step-00000005", "step-00000010", "step-00000015", "step-00000020", "step-100000000"]
    assert names(tmp_path / "checkpoints") == {*kept[-keep:], "LATEST"}


def test_every_so_many_steps_a_checkpoint_stays(tmp_path: Path) -> None:
    for step in range(2, 16, 2):
        save_checkpoint(tmp_path, step, GROUPS, {}, keep=2, keep_every=4)
    kept = {"step-00000004", "step-00000008", "step-00000012", "step-00000014"}
    assert names(tmp_path / "checkpoints") == {*kept, "LATEST"}


def test_a_full_disk_is_told_and_the_last_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = save_checkpoint(tmp_path, 1, GROUPS, {})

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    message = (
        rf"the disk of {tmp_path} is full, so the checkpoint of step 2 was not saved "
        rf"\({newest} is complete\): free space"
    )
    with pytest.raises(WeightsError, match=message):
        save_checkpoint(tmp_path, 2, GROUPS, {})
    monkeypatch.undo()
    assert names(tmp_path / "checkpoints") == {"step-00000001", "LATEST"}
    assert latest_checkpoint(tmp_path) == newest and load_checkpoint(newest)[1]["step"] == 1


def calls_of(monkeypatch: pytest.MonkeyPatch, stop_at: int, error: type[BaseException]) -> itertools.count:
    """Let the `stop_at`-th call that touches the disk fail."""
    counter = itertools.count()

    def counted(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(counter) == stop_at:
                raise error("stopped here")
            return function(*args, **kwargs)

        return call

    for name in ("fsync", "replace", "rename"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    monkeypatch.setattr(checkpoint, "write_atomic", counted(checkpoint.write_atomic))
    monkeypatch.setattr(checkpoint.shutil, "rmtree", counted(checkpoint.shutil.rmtree))
    return counter


@pytest.mark.parametrize("error", [OSError, Killed])
def test_a_save_that_ends_anywhere_leaves_a_complete_newest_checkpoint(
    tmp_path: Path, error: type[BaseException]
) -> None:
    finished = False
    for stop_at in itertools.count():
        run = tmp_path / str(stop_at)
        save_checkpoint(run, 1, GROUPS, {}, keep=1)
        with pytest.MonkeyPatch.context() as monkeypatch:
            calls_of(monkeypatch, stop_at, error)
            try:
                save_checkpoint(run, 2, GROUPS, {}, keep=1)
                finished = True
            except error:
                finished = False
        latest = latest_checkpoint(run)
        assert latest is not None
        groups, state = load_checkpoint(latest)
        assert state["step"] in (1, 2) and groups.keys() == GROUPS.keys()
        pointed = (run / "checkpoints" / "LATEST").read_text().strip()
        assert (run / "checkpoints" / pointed / "manifest.json").is_file()
        save_checkpoint(run, 3, GROUPS, {}, keep=1)
        assert names(run / "checkpoints") == {"step-00000003", "LATEST"}
        if finished:
            break
    assert stop_at > 10


def test_a_folder_without_its_manifest_does_not_count(tmp_path: Path) -> None:
    first, second = (save_checkpoint(tmp_path, step, GROUPS, {}) for step in (1, 2))
    (second / "manifest.json").unlink()
    assert latest_checkpoint(tmp_path) == first
    with pytest.raises(
        WeightsError, match=r"step-00000002 is not a complete checkpoint: it has no manifest\.json"
    ):
        load_checkpoint(second)


@pytest.mark.parametrize("change", ["flip", "cut", "remove"])
def test_a_changed_file_is_refused(tmp_path: Path, change: str) -> None:
    folder = save_checkpoint(tmp_path, 1, GROUPS, {})
    path = folder / "model.safetensors"
    content = path.read_bytes()
    if change == "remove":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if change == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(
        WeightsError,
        match=r"model\.safetensors is missing or was changed after it was saved: move step-00000001 away",
    ):
        load_checkpoint(folder)


def test_only_complete_checkpoints_count_towards_those_that_are_kept(tmp_path: Path) -> None:
    """A folder that someone is copying is of a later step, and may be cut off anywhere."""
    other = save_checkpoint(tmp_path / "other", 99, GROUPS, {})
    root = tmp_path / "run" / "checkpoints"
    save_checkpoint(tmp_path / "run", 1, GROUPS, {}, keep=1)
    shutil.copytree(other, root / "step-00000099", ignore=shutil.ignore_patterns("model*"))
    shutil.copytree(other, root / "step-00000098", ignore=shutil.ignore_patterns("manifest.json"))
    saved = save_checkpoint(tmp_path / "run", 2, GROUPS, {}, keep=1)
    assert names(root) == {"step-00000002", "step-00000098", "step-00000099", "LATEST"}
    assert load_checkpoint(saved)[1]["step"] == 2
    (root / "step-00000098").rename(root / "step-00000003")
    save_checkpoint(tmp_path / "run", 3, GROUPS, {}, keep=1)
    (aside,) = root.glob("step-00000003.replaced-*")
    assert names(aside) == {"model.safetensors", "ema.safetensors", "state.json"}
    shutil.rmtree(root / "step-00000099")
    shutil.copytree(other, root / "step-00000099")  # complete, and of a later step
    save_checkpoint(tmp_path / "run", 4, GROUPS, {}, keep=1)
    assert {"step-00000004", "step-00000099"} < names(root) and "step-00000003" not in names(root)


@pytest.mark.parametrize(
    "name",
    ["step-00000002-best", "step-2", "step-00000002.damaged", "step-0000000²", "step-000000003", "step-x"],
)
def test_folders_of_other_names_are_left_alone(tmp_path: Path, name: str) -> None:
    first = save_checkpoint(tmp_path, 1, GROUPS, {}, keep=1)
    kept = tmp_path / "checkpoints" / name
    shutil.copytree(first, kept)
    assert latest_checkpoint(tmp_path) == first
    for step in (3, 4):
        save_checkpoint(tmp_path, step, GROUPS, {}, keep=1)
    assert names(tmp_path / "checkpoints") == {"step-00000004", name, "LATEST"}
    assert load_checkpoint(kept)[1]["step"] == 1


def test_links_are_not_counted_followed_or_removed(tmp_path: Path) -> None:
    elsewhere = save_checkpoint(tmp_path / "elsewhere", 1, GROUPS, {})
    root = tmp_path / "run" / "checkpoints"
    root.mkdir(parents=True)
    for name in ("step-00000001", ".step-00000001.123", "step-00000005"):
        (root / name).symlink_to(elsewhere)
    assert latest_checkpoint(tmp_path / "run") is None
    for step in (2, 3, 5):
        save_checkpoint(tmp_path / "run", step, GROUPS, {}, keep=1)
    assert {"step-00000001", ".step-00000001.123", "step-00000005", "LATEST"} < names(root)
    assert not (root / "step-00000005").is_symlink() and len(list(root.iterdir())) == 5
    assert load_checkpoint(elsewhere)[1]["step"] == 1


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content) or content))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda content: content.pop("model.safetensors") and None, r"does not list model\.safetensors"),
        (lambda content: content.pop("state.json") and None, r"does not list state\.json"),
        (
            lambda content: content.update({"optimizer-0-of-2.safetensors": content["state.json"]}),
            r"does not list optimizer-1-of-2\.safetensors",
        ),
        (
            lambda content: content.update({"optimizer-0-of-999999999.safetensors": content["state.json"]}),
            r"does not list optimizer-1-of-999999999\.safetensors",
        ),
        (lambda content: content.update({"../model.safetensors": content["state.json"]}), "is damaged"),
        (lambda content: content.update({"/etc/passwd": content["state.json"]}), "is damaged"),
        (lambda content: content.update({"model.safetensors": 3}), "is damaged"),
        (lambda content: content["state.json"].update(bytes="7"), "is damaged"),
        (lambda content: [content], "is damaged"),
    ],
)
def test_a_manifest_names_the_files_of_its_folder_and_all_of_them(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], fault: str
) -> None:
    folder = save_checkpoint(tmp_path, 1, GROUPS, {})
    rewrite(folder, change)
    with pytest.raises(WeightsError, match=fault):
        load_checkpoint(folder)
    save_checkpoint(tmp_path, 2, GROUPS, {}, keep=1)
    assert folder.is_dir()


def test_no_manifest_is_written_for_files_that_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second writer removed the folder that the first was filling."""
    write = checkpoint._write

    def stolen(path: Path, content: bytes) -> None:
        write(path, content)
        if path.name == "state.json":
            (path.parent / "model.safetensors").unlink()

    monkeypatch.setattr(checkpoint, "_write", stolen)
    with pytest.raises(WeightsError, match=r"model\.safetensors vanished while the checkpoint was written"):
        save_checkpoint(tmp_path, 1, GROUPS, {})
    assert latest_checkpoint(tmp_path) is None


def test_a_file_that_a_training_needs_and_a_checkpoint_lacks_is_named(tmp_path: Path) -> None:
    files, _ = load_checkpoint(save_checkpoint(tmp_path, 1, GROUPS, {}))
    with pytest.raises(WeightsError, match=r"has no loss_scale\.safetensors, which this training continues"):
        files["loss_scale"]


def test_weights_of_a_checkpoint_are_compared_with_its_manifest(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, 1, {"model": {"w": np.ones(3, np.float32)}}, {})
    assert set(load_weights(tmp_path, expected={"w": (3,)})) == {"w"}
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for source in (tmp_path, folder, path):
        with pytest.raises(WeightsError, match=r"model\.safetensors is missing or was changed after it was"):
            load_weights(source, expected={"w": (3,)})
