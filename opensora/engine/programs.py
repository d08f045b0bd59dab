"""Compiled graphs, kept up to a limit in bytes."""

import ctypes
import gc
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from opensora.runtime import resident_memory

LIMIT = 2**28
"""Bytes of graphs that are kept for later calls."""
P = TypeVar("P")


@dataclass
class _StoredProgram(Generic[P]):
    program: P
    size: int
    call: int
    """The number of the call that used it last."""


class Programs(Generic[P]):
    """Programs by key. Beyond the limit, those go that were not used for longest, but none of this call's."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._entries: OrderedDict[Hashable, _StoredProgram[P]] = OrderedDict()
        self._call = 0

    def __len__(self) -> int:
        return len(self._entries)

    def new_call(self) -> None:
        """Programs that are used from here on are those of another call."""
        self._call += 1

    def get(self, key: Hashable) -> P | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        entry.call = self._call
        self._entries.move_to_end(key)
        return entry.program

    def add(self, key: Hashable, program: P, size: int) -> None:
        """size: bytes by which the process grew while the program was compiled and ran for the first time."""
        self._entries[key] = _StoredProgram(program, max(size, 0), self._call)
        if self._shrink():
            give_back_memory()

    def clear(self) -> None:
        """Let all programs go."""
        self._entries.clear()

    def _shrink(self) -> bool:
        total, before = sum(entry.size for entry in self._entries.values()), len(self._entries)
        for key, entry in list(self._entries.items()):
            if total <= self.limit or entry.call == self._call:
                break
            total -= entry.size
            del self._entries[key]
        return len(self._entries) < before


class Growth:
    """The growth of the process since this object was made."""

    def __init__(self) -> None:
        self._before = resident_memory()

    @property
    def bytes(self) -> int:
        return resident_memory() - self._before


def give_back_memory() -> None:
    """Return memory that is free inside of the process to the system, where the C library can."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
