"""Returns disk space: thinning leaves free pages in the file, which new rows use first.

While a server runs, some free pages at a time are moved to the end of the file and cut off. This
needs a file that tracks its pages (`auto_vacuum`), as this release makes them. Other files are only
rewritten, while no server runs. Rewriting also fills pages that are half empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from memory_store import erasure
from memory_store.history_thinning import Removed, Thinning
from memory_store.store import MemoryStore
from memory_store.vocabulary import Compaction

# Of 4 KiB each, in one transaction of a few milliseconds.
PAGES = 200
LOG_PAGES = 1_000
_INCREMENTAL = 2


@dataclass(frozen=True, slots=True)
class Space:
    """The size of the database file, and the free part of it, in bytes."""

    total: int
    free: int


def space(store: MemoryStore) -> Space:
    """Returns the size of the file once its log is moved into it."""
    pages, free, size = (
        int(store.connection.execute(f"PRAGMA {name}")[0][name])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return Space(pages * size, free * size)


def give_back(store: MemoryStore) -> bool:
    """Cuts some free pages off; False if there are none, or the file must be rewritten."""
    [mode] = store.connection.execute("PRAGMA auto_vacuum")
    if mode["auto_vacuum"] != _INCREMENTAL or not space(store).free:
        return False
    store.connection.execute(f"PRAGMA incremental_vacuum({PAGES})")
    return True


def postponed(store: MemoryStore) -> str:
    """Returns why nothing can be thinned now, for people; empty if it can. See `Thinning.piece`."""
    texts = len(erasure.pending(store))
    if not texts:
        return ""
    return (
        f"old probes and events stay until the server has removed the text of {texts} erased"
        f" fact{'s' if texts > 1 else ''} everywhere: compact again after that"
    )


def compaction(before: Space, after: Space, removed: Removed, postponed: str) -> Compaction:
    """Makes the report."""
    return Compaction(
        bytes_before=before.total,
        bytes_after=after.total,
        removed_probes=removed.probes,
        removed_events=removed.events,
        reclaimable_bytes=after.free,
        postponed=postponed,
    )


def compact_file(path: Path, keep_events: int) -> Compaction:
    """Thins a memory that no server uses, and rewrites its file.

    If it is interrupted, the file is intact, and thinned in part.

    Args:
        path: of the database.
        keep_events: as of `Thinning`.

    Raises:
        StoreUnusableError: the file is missing, of another release or in use; or there is no room
            for a copy.
    """
    with MemoryStore.open(path, read_only=True):
        pass  # only the server migrates an older one
    with MemoryStore.open(path, must_exist=True) as store:
        # Synced when the log is moved into the file, because nothing is acknowledged in between.
        store.connection.execute("PRAGMA synchronous = NORMAL")
        before, removed = space(store), Removed()
        thinning = Thinning(keep_events, fully=True)
        while (piece := thinning.piece(store)) is not None:
            removed += piece
            store.connection.shorten_log(LOG_PAGES)
        store.connection.execute("VACUUM")
        store.connection.checkpoint()
        return compaction(before, space(store), removed, postponed(store))
