"""One case of the fuzzer: a copy of a reader's files, one of them mutated, and what reading them gave."""

import os
import random
import resource
import shutil
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.mutate import mutate
from tests.fuzz.readers import Reader

MEMORY = 2 * 2**30
"""Bytes that a reader may take."""
SECONDS = 60
"""Time that a reader may take."""


class Case(NamedTuple):
    """What is read: the reader's name, the mutated file in its folder, and the file's content."""

    reader: str
    file: str
    content: bytes


class Result(NamedTuple):
    """How a case ended. `fault` is "" if the file was read or refused with a sentence, or what happened."""

    number: int
    reader: str
    file: str
    fault: str


def make_seeds(folder: Path, readers: Mapping[str, Reader], read: bool = True) -> None:
    """Write the valid files of every reader. read: require that it reads them."""
    for name, reader in readers.items():
        (folder / name).mkdir(parents=True)
        reader.make(folder / name)
        if not read:
            continue
        with tempfile.TemporaryDirectory() as copy:
            shutil.copytree(folder / name, copy, dirs_exist_ok=True)
            reader.read(Path(copy))


def make_case(seeds: Path, readers: Mapping[str, Reader], seed: int, number: int) -> Case:
    """Case `number` of a seed: the same for the same arguments."""
    rng = random.Random(f"{seed}-{number}")
    name = rng.choice(sorted(readers))
    folder, patterns = seeds / name, readers[name].mutated
    files = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    path = rng.choice(files)
    return Case(name, str(path.relative_to(folder)), mutate(path.read_bytes(), path.name, rng))


def run_case(seeds: Path, readers: Mapping[str, Reader], case: Case) -> str:
    """Read the files of a case in a new folder; the fault, or ""."""
    folder = Path(tempfile.mkdtemp(prefix="case-", dir=seeds.parent))
    try:
        shutil.copytree(seeds / case.reader, folder, dirs_exist_ok=True)
        (folder / case.file).write_bytes(case.content)
        try:
            readers[case.reader].read(folder)
        except MemoryError:
            return f"more than {MEMORY >> 30} GiB of memory: {_where()}"
        except (ValueError, OSError) as error:
            named = readers[case.reader].names_file
            return _bad_sentence(error, folder if named else None)
        except BaseException:
            return f"traceback: {_where()}"
        return ""
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _bad_sentence(error: Exception, folder: Path | None) -> str:
    """Why an error is not a sentence for a user that names a file in the folder, or ""."""
    text = str(error)
    if isinstance(error, UnicodeError) or type(error).__module__ in ("json.decoder", "numpy"):
        return f"{type(error).__name__} instead of a sentence: {_where()}"
    if "memory" in text.lower() and "allocate" in text.lower():
        return f"more than {MEMORY >> 30} GiB of memory: {text[:200]}"
    if folder is not None and str(folder) not in f"{text} {getattr(error, 'filename', '')}":
        return f"the message does not name the file: {text[:200]!r}: {_where()}"
    return ""


def _where() -> str:
    return " | ".join(line.strip() for line in traceback.format_exc().splitlines()[-7:])


def limit_memory() -> None:
    """Let this process take `MEMORY` more than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
