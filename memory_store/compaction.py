"""Giving space back: thinning leaves free pages in the file, which new rows take first.

While a server runs, free pages are moved to the end of the file and cut off, some at a time. That
needs a file that keeps track of its pages (`auto_vacuum`), as those of this release do; older files
are only rewritten, when no server runs. Rewriting also fills pages that are half empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from memory_store import erasure
from memory_store.history_thinning import Removed, Thinning
from memory_store.store import MemoryStore
from memory_store.vocabulary import Compaction

# Of 4 KiB, in one transaction of some milliseconds.
PAGES = 200
LOG_PAGES = 1_000
_INCREMENTAL = 2


@dataclass(frozen=True, slots=True)
class Space:
    """The bytes of the database file, and those of them that are free."""

    total: int
    free: int


def space(store: MemoryStore) -> Space:
    """What the file takes once its log is moved into it."""
    pages, free, size = (
        int(store.connection.execute(f"PRAGMA {name}")[0][name])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return Space(pages * size, free * size)


def give_back(store: MemoryStore) -> bool:
    """Cuts some free pages off the file; False if there are none, or it has to be rewritten."""
    [mode] = store.connection.execute("PRAGMA auto_vacuum")
    if mode["auto_vacuum"] != _INCREMENTAL or not space(store).free:
        return False
    store.connection.execute(f"PRAGMA incremental_vacuum({PAGES})")
    return True


def postponed(store: MemoryStore) -> str:
    """Why nothing can be thinned now, for people; empty if it can be: see `Thinning.piece`."""
    texts = len(erasure.pending(store))
    if not texts:
        return ""
    return (
        f"old probes and events stay until the server has removed the text of {texts} erased"
        f" fact{'s' if texts > 1 else ''} everywhere: compact again after that"
    )


def compaction(before: Space, after: Space, removed: Removed, postponed: str) -> Compaction:
    """The report."""
    return Compaction(
        bytes_before=before.total,
        bytes_after=after.total,
        removed_probes=removed.probes,
        removed_events=removed.events,
        reclaimable_bytes=after.free,
        postponed=postponed,
    )


def compact_file(path: Path, keep_events: int) -> Compaction:
    """Applies the rule to a memory that no server uses, and rewrites its file.

    Interrupted, it leaves a whole file, thinned as far as it came.

    Args:
        path: of the database.
        keep_events: as of `Thinning`.

    Raises:
        StoreUnusableError: the file is missing, of another release or in use; or there is no room
            for a second one beside it.
    """
    with MemoryStore.open(path, read_only=True):
        pass  # an older one is left as it is: bringing it up to date is the server's business
    with MemoryStore.open(path, must_exist=True) as store:
        # Synced when the log is moved into the file: nobody is answered in between.
        store.connection.execute("PRAGMA synchronous = NORMAL")
        before, removed = space(store), Removed()
        thinning = Thinning(keep_events, fully=True)
        while (piece := thinning.piece(store)) is not None:
            removed += piece
            store.connection.shorten_log(LOG_PAGES)
        store.connection.execute("VACUUM")
        store.connection.checkpoint()
        return compaction(before, space(store), removed, postponed(store))
