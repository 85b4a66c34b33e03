"""After a fact was forgotten: removing what still holds it outside the tables."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from pathlib import Path

from agent.config import DATABASE
from memory_store.records import PlaceKind
from memory_store.schema_copies import remove_copies
from memory_store.store import MemoryStore
from memory_store.writer import StoreThreads

logger = logging.getLogger(__name__)

# Removes all snapshots but those of some versions; also what is being written meanwhile.
KeepOnly = Callable[[Collection[int]], Awaitable[None]]


async def remove_traces(store: StoreThreads, keep_only: KeepOnly, *, erased: bool) -> str:
    """Removes snapshots of weights that held the fact; for an erased one, its text too.

    Snapshots of the branch that is served never held it. Backups are removed whole: a database
    cannot be cleaned without opening it. Exports are left alone, since they may be in use; who
    asks to erase is told of them.

    Returns:
        What is left, for people; empty if nothing.

    Raises:
        OSError: a snapshot, or a copy from before a migration, cannot be removed.
    """
    head = await store.read(MemoryStore.model_version)
    await keep_only(set(await store.read(partial(MemoryStore.lineage, version=head))))
    if not erased:
        return ""
    await asyncio.to_thread(remove_copies, store.path)
    left = []
    for place in await store.read(MemoryStore.places):
        folder = Path(place.path)
        # Removed only if it looks like a backup of ours.
        if place.kind is PlaceKind.BACKUP and (folder / DATABASE).is_file():
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            if folder.exists():
                left.append(f"the backup {folder} could not be removed")
                continue
            logger.info("removed the backup %s: it held an erased fact", folder)
            await store.write(
                partial(MemoryStore.forget_place, kind=PlaceKind.BACKUP, path=place.path)
            )
    if not await store.empty_log():
        left.append("the write-ahead log holds the text until the server stops")
    return "; ".join(left)
