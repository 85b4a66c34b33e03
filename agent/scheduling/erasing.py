"""After a fact was forgotten: removing what still holds it outside the tables."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from functools import partial

from agent.backups import Backups
from memory_store import erasing, identity
from memory_store.erasing import Sought
from memory_store.records import Operation
from memory_store.schema_copies import remove_copies
from memory_store.store import MemoryStore
from memory_store.writer import StoreThreads

# Removes all snapshots but those of some versions; also what is being written meanwhile.
KeepOnly = Callable[[Collection[int]], Awaitable[None]]


async def remove_traces(
    store: StoreThreads, keep_only: KeepOnly, backups: Backups | None, operation: Operation
) -> str:
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
    if not operation.erase:
        return ""
    left = await remove_text(store, backups)
    left += await store.read(partial(_copied_from, fact_id=operation.fact_id))
    return "; ".join(left)


async def remove_text(store: StoreThreads, backups: Backups | None) -> list[str]:
    """Removes erased texts from rows of other facts, and from what was copied from the database.

    Returns:
        Where they are left, for people.

    Raises:
        OSError: a copy from before a migration cannot be removed.
    """
    left = [
        reason
        for sought in await store.read(erasing.pending)
        for reason in await _erase_everywhere(store, sought)
    ]
    await asyncio.to_thread(remove_copies, store.path)
    if backups is not None:
        left += await backups.remove_all()
    if not await store.empty_log():
        left.append("the write-ahead log holds the text until the server stops")
    return left


async def _erase_everywhere(store: StoreThreads, sought: Sought) -> list[str]:
    """Removes a text from the rows of other facts; returns where it is left, for people."""
    kept: list[tuple[str, str]] = []
    for table in erasing.TABLES:
        after, more = None, True
        while more:
            page = await store.read(partial(erasing.look, sought=sought, table=table, after=after))
            if page.changes:
                await store.write(partial(erasing.clean, changes=page.changes))
            kept += page.kept
            after, more = page.last, page.last is not None
    await store.write(partial(erasing.close, sought=sought))
    return erasing.kept_by_others(sought, kept)


def _copied_from(store: MemoryStore, fact_id: str) -> list[str]:
    """The memories that may have the fact too, because this one was copied from them."""
    accepted_at = store.fact(fact_id).accepted_at
    return [
        f"this memory is a copy, first served {origin.at:%Y-%m-%d}, of memory"
        f" {origin.memory_id[:8]}: that one and its backups may have the text"
        for origin in identity.origins(store.connection)
        if accepted_at < origin.at
    ]
