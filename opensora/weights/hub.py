"""`opensora download`: files of a model on the Hugging Face Hub, or a server with its interface.

A file is written to `<name>.part` first, which a later run continues, and is checked by the hash in the Hub's
index. `download.json` records the commit; later runs into the folder take files of the same one.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from opensora.config_files import checked
from opensora.console import Progress, printable
from opensora.files import check_writable, only_writer, read_sidecar, sync_folder, write_json
from opensora.weights.folder import HUB_NAME

log = logging.getLogger(__name__)

RECORD = "download.json"
BLOCK = 2**20
STEP = 2**26  # bytes of a step of the progress bar
TIMEOUT = 60  # seconds without an answer
MOST_INDEX = 2**26  # bytes


@dataclass(frozen=True, kw_only=True)
class DownloadOptions:
    """Options of `opensora download`."""

    GROUP: ClassVar[str] = "download"
    repository: list[str] = field(default_factory=list)
    """Name of the model, such as LanguageBind/Open-Sora-Plan-v1.1.0."""
    include: list[str] = field(default_factory=list)
    """Folders, files or patterns such as *.json to download; default: all files."""
    output_path: str | None = None
    """Folder; default: the last part of the name."""
    revision: str | None = None
    """Branch, tag or commit; default: main, or the commit of an earlier run into the folder."""


class HubFile(NamedTuple):
    """A file of the index. sha256: of its content, or None; then blob is Git's sha1."""

    name: str
    size: int
    sha256: str | None
    blob: str


def download(options: DownloadOptions) -> None:
    """Download what is missing. Raises ValueError for wrong names, a full disk, and files that differ."""
    if len(options.repository) != 1 or not HUB_NAME.fullmatch(options.repository[0]):
        raise ValueError("name one model, as in `opensora download LanguageBind/Open-Sora-Plan-v1.1.0`")
    (repository,) = options.repository
    folder = Path(options.output_path or repository.split("/")[1])
    check_writable(folder, "output_path")
    with only_writer(folder, "output_path"):
        commit, files = _index(repository, _revision(folder, repository, options.revision))
        chosen = [file for file in files if _is_included(file.name, options.include)]
        if not chosen:
            held = ", ".join(sorted({PurePosixPath(file.name).parts[0] for file in files})[:20])
            raise ValueError(
                f"{repository} has no file for --include {' '.join(options.include)}: it has {held}"
            )
        missing = [file for file in chosen if not _is_there(folder, file)]
        needed = sum(file.size for file in missing)
        if needed > shutil.disk_usage(folder).free:
            raise ValueError(f"{folder} has too little space: {needed / 1e9:.1f} GB are needed")
        record = {"repository": repository, "revision": options.revision or "main", "commit": commit}
        write_json(folder / RECORD, record)
        log.info(
            "%s at %s: %d of %d files, %.2f GB", repository, commit, len(missing), len(chosen), needed / 1e9
        )
        progress = Progress("download", sum(1 + file.size // STEP for file in missing))
        for file in missing:
            address = f"{repository}/resolve/{commit}/{quote(file.name)}"
            _fetch(address, file, folder / file.name, progress)
            log.info("%s", folder / file.name)


def _revision(folder: Path, repository: str, revision: str | None) -> str:
    """The revision to ask for: that of an earlier run into the folder, or the one that is wanted."""
    earlier = read_sidecar(folder / RECORD)
    if not (folder / RECORD).exists():
        return revision or "main"
    commit = str(earlier.get("commit"))
    if earlier.get("repository") != repository or revision not in (None, commit, earlier.get("revision")):
        raise ValueError(
            f"{folder} holds {printable(earlier.get('repository'))} at {printable(commit)}: "
            "choose another --output_path"
        )
    return commit


def _index(repository: str, revision: str) -> tuple[str, list[HubFile]]:
    """The commit of a revision, and its files."""
    address = f"api/models/{repository}/revision/{quote(revision, safe='')}?blobs=true"
    with _open(address, repository) as answer:
        content = answer.read(MOST_INDEX)
    try:
        index = checked(dict[str, Any], json.loads(content), address, "its content")
        commit = checked(str, index.get("sha"), address, "sha")
        entries = checked(list[dict[str, Any]], index.get("siblings"), address, "siblings")
        files = [_entry(entry, address) for entry in entries]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the index of {repository} cannot be read ({error}): try again later") from error
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise ValueError(f"the index of {repository} names no commit: try again later")
    return commit, files


def _entry(entry: dict[str, Any], where: str) -> HubFile:
    name = checked(str, entry.get("rfilename"), where, "rfilename")
    path = PurePosixPath(name)
    # A name must not lead out of the folder.
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or str(path) != name:
        raise ValueError(f"it names {printable(name)!r}")
    lfs = entry.get("lfs")
    sha256 = checked(str, lfs.get("sha256"), where, "sha256") if isinstance(lfs, dict) else None
    size = checked(int, entry.get("size"), where, "size")
    return HubFile(name, size, sha256, checked(str, entry.get("blobId"), where, "blobId"))


def _is_included(name: str, include: Sequence[str]) -> bool:
    wanted = [item.strip("/") for item in include]
    return not wanted or any(
        name == item or name.startswith(f"{item}/") or fnmatchcase(name, item) for item in wanted
    )


def _is_there(folder: Path, file: HubFile) -> bool:
    """True if the file is complete. Raises ValueError for another file of its name."""
    path = folder / file.name
    if not path.exists():
        return False
    if path.is_file() and path.stat().st_size == file.size and _is_right(path, file):
        return True
    raise ValueError(f"{path} exists and is another file: move it away, or choose another --output_path")


def _is_right(path: Path, file: HubFile) -> bool:
    digest = hashlib.sha1(f"blob {file.size}\0".encode()) if file.sha256 is None else hashlib.sha256()
    with open(path, "rb") as content:
        while block := content.read(BLOCK):
            digest.update(block)
    return digest.hexdigest() == (file.blob if file.sha256 is None else file.sha256)


def _fetch(address: str, file: HubFile, target: Path, progress: Progress) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    done = part.stat().st_size if part.is_file() else 0
    if done > file.size:
        part.unlink()
        done = 0
    steps = 0
    if done < file.size or not part.exists():
        with (
            _open(address, file.name, done) as answer,
            open(part, "ab" if answer.status == 206 else "wb") as content,
        ):
            done = done if answer.status == 206 else 0
            while block := answer.read(BLOCK):
                content.write(block)
                done += len(block)
                if done > file.size:
                    break
                while steps < done // STEP:
                    progress.step()
                    steps += 1
            os.fsync(content.fileno())
    if done < file.size:
        raise ValueError(
            f"{file.name} broke off after {done:,} of {file.size:,} bytes: start the command again"
        )
    if not _is_right(part, file):
        part.unlink()
        raise ValueError(f"{file.name} is not what the index says, it was removed: start the command again")
    os.replace(part, target)
    sync_folder(target.parent)
    for _ in range(1 + file.size // STEP - steps):
        progress.step()


@contextmanager
def _open(address: str, what: str, start: int = 0) -> Iterator[HTTPResponse]:
    """An answer of the Hub, from byte `start` on. Raises ValueError for everything that goes wrong."""
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    if not endpoint.startswith(("https://", "http://")):
        raise ValueError(f"HF_ENDPOINT {endpoint!r} is no address: write https:// before it")
    request = Request(f"{endpoint}/{address}", headers={"User-Agent": "opensora"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    if token := os.environ.get("HF_TOKEN"):
        request.add_unredirected_header("Authorization", f"Bearer {token}")  # for the Hub alone
    try:
        with urlopen(request, timeout=TIMEOUT) as answer:
            yield answer
    except HTTPError as error:
        remedy = {
            401: "check the name; for a model that asks for an account, set HF_TOKEN",
            403: "accept its licence on the Hub and set HF_TOKEN",
            404: "check the name and --revision",
        }.get(error.code, "try again later")
        raise ValueError(f"{endpoint} refuses {what} ({error.code} {error.reason}): {remedy}") from error
    except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error) or type(error).__name__
        raise ValueError(
            f"{what} broke off, {endpoint} does not answer ({reason}): check the network and start again"
        ) from error
