"""Reading a line of the ledger in parts, so that no reading holds up those who wait."""

from __future__ import annotations

from functools import partial

from memory_store.lines import Line, part_of_line
from memory_store.store import MemoryStore
from memory_store.writer import StoreThreads


async def read_line(store: StoreThreads, version: int, known: Line | None = None) -> Line:
    """The line of a version.

    Args:
        store: the memory.
        version: of the ledger; 0 gives an empty line.
        known: the line of an earlier version that is on it, which is then not read again.
    """
    before = known.ranges if known else ()
    reached = before[-1][1] if before else 0
    newest_first: list[tuple[int, int]] = []
    while version > reached:
        part, version = await store.read(partial(_part, version=version))
        newest_first += [(max(first, reached + 1), last) for first, last in part if last > reached]
    return Line((*before, *reversed(newest_first)))


def _part(store: MemoryStore, version: int) -> tuple[list[tuple[int, int]], int]:
    return part_of_line(store.connection, version)
