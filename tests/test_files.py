"""Temporary files and folders, and the lock that lets one process write to a folder."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from opensora.files import atomic_path, only_writer, read_json_lines, scratch_folder, write_atomic

HOLD = """
import sys
from pathlib import Path
from opensora.files import atomic_path, only_writer, scratch_folder

folder = Path(sys.argv[1])
with only_writer(folder, "output_dir"), atomic_path(folder / "a.mp4"), scratch_folder(folder) as scratch:
    (scratch / "large.npy").touch()
    print("ready", flush=True)
    sys.stdin.read()
"""


def hold(folder: Path) -> "subprocess.Popen[str]":
    """A process that is writing to the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_one_process_writes_and_a_dead_one_leaves_nothing(tmp_path: Path) -> None:
    process = hold(tmp_path / "run")
    scratch = {path.name for path in (tmp_path / "run").glob(".opensora-*")}
    assert len(scratch) == 2
    with (
        pytest.raises(ValueError, match=f"another process is writing to {tmp_path}/run: wait until it ends"),
        only_writer(tmp_path / "run", "output_dir"),
    ):
        pass
    assert {path.name for path in (tmp_path / "run").glob(".opensora-*")} == scratch
    process.kill()
    process.communicate()
    (tmp_path / "target").mkdir()
    (tmp_path / "run" / ".opensora-0123456789abcdef").symlink_to(tmp_path / "target")
    (tmp_path / "run" / ".opensora-mine").touch()
    with only_writer(tmp_path / "run", "output_dir"):
        left = {path.name for path in (tmp_path / "run").iterdir()}
        assert left == {".lock", ".opensora-0123456789abcdef", ".opensora-mine"}
    assert (tmp_path / "target").is_dir()
    with only_writer(tmp_path / "new" / "run", "output_dir"):
        pass
    assert not (tmp_path / "new").exists() and not (tmp_path / "run" / ".lock").exists()


def test_what_a_living_process_writes_without_the_lock_stays(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.bin") as file, scratch_folder(tmp_path) as folder:
        with only_writer(tmp_path, "output_dir"):
            assert file.is_file() and folder.is_dir()
        file.write_bytes(b"x")
    assert (tmp_path / "a.bin").read_bytes() == b"x"


def test_temporary_names_are_random_exclusive_and_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with atomic_path(tmp_path / "a.mp4") as first, atomic_path(tmp_path / "a.mp4") as second:
        assert first != second and first.suffix == ".mp4"
    precious = tmp_path / "precious"
    precious.write_text("kept")
    monkeypatch.setattr("secrets.token_hex", lambda count: "0" * 2 * count)
    (tmp_path / f".opensora-{'0' * 16}").symlink_to(precious)
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "b", lambda file: file.write(b"x"))
    assert precious.read_text() == "kept" and not (tmp_path / "b").exists()


def test_long_names_and_the_usual_permissions(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".mp4")
    write_atomic(path, lambda file: file.write(b"x"))
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    def full(file: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError) as caught:
        write_atomic(tmp_path / "a", full)
    assert caught.value.filename == str(tmp_path / "a")


def test_a_journal_has_a_limit(tmp_path: Path) -> None:
    with open(tmp_path / "metrics.jsonl", "wb") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(ValueError, match=r"metrics\.jsonl is larger than 1,073,741,824 bytes"):
        next(read_json_lines(tmp_path / "metrics.jsonl"))
