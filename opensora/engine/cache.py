"""Compiled graphs in files, so that a second process reads what the first one compiled.

They lie below the user's cache folder, each under the digest of its graph. OPENSORA_GRAPH_CACHE names another
folder, or is "off".
"""

import hashlib
import logging
import os
import re
import stat
import sys
from pathlib import Path

from opensora.files import atomic_path, remove_scratch

log = logging.getLogger(__name__)

ENVIRONMENT = "OPENSORA_GRAPH_CACHE"
LIMIT = 2**29
"""Bytes of all files; those that were read longest ago go first."""
NAME = re.compile(r"[0-9a-f]{64}\.graph")
MAGIC = b"opensora graph 1\n"
CHECKSUM = hashlib.sha256().digest_size


class GraphCache:
    """Files `<digest>.graph`: MAGIC, the sha256 of the rest, the compiled graph.

    Nothing here fails: a file that cannot be read or written is one that is not there.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self.folder, self.limit = folder, limit
        self._complained = False

    def read(self, digest: str) -> memoryview | None:
        """The graph, or None if it is not there or the file is damaged or of another user."""
        path = self._path(digest)
        try:
            if not self._is_safe():
                return None
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                if not (_is_entry(status) and status.st_size <= self.limit):
                    return None
                content = bytearray(status.st_size)  # writable, as a tensor that shares it has to be
                file.readinto(content)
                os.utime(descriptor)
        except OSError as error:
            log.debug("no graph from %s: %s", path, error)
            return None
        start = len(MAGIC) + CHECKSUM
        graph = memoryview(content)[start:]
        if content[:start] != MAGIC + hashlib.sha256(graph).digest():
            log.debug("%s is damaged", path)
            return None
        return graph

    def write(self, digest: str, graph: bytes) -> None:
        """Keep a graph, and remove old ones beyond the limit."""
        size = len(MAGIC) + CHECKSUM + len(graph)
        if size > self.limit:
            return
        path = self._path(digest)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._is_safe():
                return
            remove_scratch(self.folder)
            self._make_room(size)
            with atomic_path(path, durable=False) as temporary, open(temporary, "wb") as file:
                os.chmod(temporary, 0o600)
                file.writelines((MAGIC, hashlib.sha256(graph).digest(), graph))
        except OSError as error:
            log.debug("no graph in %s: %s", path, error)

    def _make_room(self, size: int) -> None:
        """Remove the graphs that were read longest ago until one of this size fits."""
        entries = []
        for path in self.folder.iterdir():
            if NAME.fullmatch(path.name) and _is_entry(status := path.lstat()):
                entries.append((status.st_mtime_ns, path, status.st_size))
        total = sum(entry[2] for entry in entries) + size
        for _, path, freed in sorted(entries):
            if total <= self.limit:
                break
            path.unlink(missing_ok=True)
            total -= freed

    def _is_safe(self) -> bool:
        safe = _is_private(self.folder.stat())
        if not (safe or self._complained):
            log.warning("graphs are not kept in %s: others can write to it", self.folder)
            self._complained = True
        return safe

    def _path(self, digest: str) -> Path:
        return self.folder / f"{digest}.graph"


def open_cache() -> GraphCache | None:
    """The cache that the environment chooses; None if it is switched off."""
    chosen = os.environ.get(ENVIRONMENT, "")
    if chosen == "off":
        return None
    return GraphCache(Path(chosen) if chosen else _user_cache() / "opensora" / "graphs")


def _user_cache() -> Path:
    """The folder of the XDG base directory specification; on macOS the system's own."""
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(chosen):
        return Path(chosen)
    return Path(os.path.expanduser("~")) / ("Library/Caches" if sys.platform == "darwin" else ".cache")


def _is_private(status: os.stat_result) -> bool:
    """True if it belongs to this user and nobody else can write to it."""
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _is_entry(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and _is_private(status)
