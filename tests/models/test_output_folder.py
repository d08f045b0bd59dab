"""A conversion writes all of its files or none, and starts again after a kill."""

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from opensora.cli import main
from opensora.models.convert import Conversion, convert
from opensora.models.output_folder import OutputFolder, output_folder
from opensora.train.checkpoint import save_checkpoint
from opensora.weights import WeightsError
from opensora.weights.folder import DEMO
from tests.models.published import RELEASE


class Killed(BaseException):
    """What no handler in the code under test catches."""


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of the demo model's transformer, trained with its text encoder."""
    source = DEMO / "17x64x64"
    weights = load_file(source / "diffusion_pytorch_model.safetensors")
    text = load_file(DEMO / "text_encoder" / "model.safetensors")
    average = {name: value.astype(np.float32) + 1 for name, value in weights.items()}
    groups = {"model": weights, "ema": average, "text_encoder": text, "text_encoder_ema": text}
    save_checkpoint(tmp_path / "run", 1, groups, {})
    shutil.copy(source / "config.json", tmp_path / "run" / "config.json")
    return tmp_path / "run"


def test_a_run_and_a_base_make_a_model_folder(run: Path, tmp_path: Path) -> None:
    words = ["convert", f"--src={run}", f"--target={tmp_path / 'models' / 'mine'}", "--base=demo"]
    assert main(words) == 0
    mine = tmp_path / "models" / "mine"
    assert files(mine) == files(DEMO)
    for part in ("vae", "text_encoder/config.json", "text_encoder/spiece.model"):
        for path in [mine / part] if (mine / part).is_file() else (mine / part).iterdir():
            assert path.read_bytes() == (DEMO / path.relative_to(mine)).read_bytes()
    name = "17x64x64/diffusion_pytorch_model.safetensors"
    old, new = load_file(DEMO / name), load_file(mine / name)
    assert all(np.array_equal(new[key], old[key].astype(np.float32) + 1) for key in old)
    assert main(words) == 2
    assert main([*words, "--overwrite"]) == 0 and files(mine) == files(DEMO)


def test_a_base_belongs_to_a_run_and_a_folder(run: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="--base makes a model folder"):
        convert(run, tmp_path / "a.safetensors", Conversion(base="demo"))
    with pytest.raises(WeightsError, match="several parts"):
        convert(DEMO, tmp_path / "a", Conversion(base="demo"))
    assert files(tmp_path) == {f"run/{name}" for name in files(run)}


def test_a_damaged_part_leaves_nothing_of_the_others(tmp_path: Path) -> None:
    source = Path(shutil.copytree(DEMO, tmp_path / "demo"))
    path = source / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError):
        convert(source, tmp_path / "new" / "out", Conversion())
    assert not (tmp_path / "new").exists()


class Stopper:
    """Lets the n-th call that touches the disk fail."""

    def __init__(self, stop_at: int, error: type[BaseException]) -> None:
        self.left, self.error = stop_at, error

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            if self.left == 0:
                raise self.error("stopped here")
            self.left -= 1
            return function(*arguments, **more)

        return call


@pytest.mark.slow
@pytest.mark.parametrize("error", [OSError, Killed])
@pytest.mark.parametrize("existing", [False, True])
def test_a_conversion_that_ends_while_files_move_starts_again(
    tmp_path: Path, error: type[BaseException], existing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = [name for name in files(DEMO) if not name.endswith(".safetensors")]
    mine = {"notes.txt"} if existing else set()
    publish = OutputFolder.publish
    for stop_at in range(100):
        target = tmp_path / str(stop_at) / "out"
        if existing:
            target.mkdir(parents=True)
            (target / "notes.txt").write_text("mine")

        stopper = Stopper(stop_at, error)

        def stopped(output: OutputFolder, stopper: Stopper = stopper) -> None:
            with pytest.MonkeyPatch.context() as context:
                for name in ("fsync", "replace", "rename"):
                    context.setattr(os, name, stopper.wrap(getattr(os, name)))
                publish(output)

        monkeypatch.setattr(OutputFolder, "publish", stopped)
        with suppress(error):
            convert(DEMO, target, Conversion())
        monkeypatch.setattr(OutputFolder, "publish", publish)
        if stopper.left:
            break
        with suppress(WeightsError):  # it was complete
            convert(DEMO, target, Conversion())
        assert files(target) == files(DEMO) | mine
        assert all((target / name).read_bytes() == (DEMO / name).read_bytes() for name in small)
    assert stop_at == (2 * len(files(DEMO)) + 1 if existing else 3)


def test_a_file_of_someone_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").write_text("precious")
    with pytest.raises(
        WeightsError, match=r"exists: choose another --target, .* or replace it with --overwrite"
    ):
        convert(DEMO, tmp_path, Conversion())
    assert files(tmp_path) == {"vae/diffusion_pytorch_model.safetensors"}
    convert(DEMO, tmp_path, Conversion(overwrite=True))
    assert files(tmp_path) == files(DEMO)


def test_overwriting_a_release(tmp_path: Path) -> None:
    target = Path(shutil.copytree(RELEASE / "5x32x32", tmp_path / "part"))
    convert(RELEASE / "t2v.pt", target, Conversion(overwrite=True))
    assert "diffusion_pytorch_model.safetensors" in files(target)


def test_an_error_of_the_disk_names_the_file_that_was_to_be(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space") as caught, output_folder(tmp_path / "new", False) as output:
        place = output.place(tmp_path / "new" / "vae" / "config.json")
        raise OSError(errno.ENOSPC, "No space left on device", str(place))
    assert caught.value.filename == str(tmp_path / "new" / "vae" / "config.json")
    assert not (tmp_path / "new").exists()
