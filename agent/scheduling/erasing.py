"""After a fact was forgotten: removing what still holds it outside the tables."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from functools import partial

from agent.backups import Backups
from memory_store import erasing, identity, ledger
from memory_store.erasing import Sought
from memory_store.schema_copies import remove_copies
from memory_store.store import MemoryStore
from memory_store.vocabulary import Operation
from memory_store.writer import StoreThreads

logger = logging.getLogger(__name__)

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
    await keep_only(
        set(await store.read(lambda store: ledger.lineage(store.connection, version=head)))
    )
    if not operation.erase:
        return ""
    left = await remove_text(store, backups, last=True)
    kept = await store.read(partial(erasing.kept_of, fact_id=operation.fact_id))
    origins = await store.read(partial(_copied_from, fact_id=operation.fact_id))
    return "; ".join((*kept, *left, *origins))


async def remove_text(
    store: StoreThreads, backups: Backups | None, *, last: bool = False
) -> list[str]:
    """Removes erased texts from rows of other facts, and from what was copied from the database.

    Args:
        store: the memory.
        backups: of this memory; None: there are none.
        last: an operation reports what is left, and ends.

    Returns:
        Which copies are left, for people. Which facts keep a text: see `erasing.kept_of`.

    Raises:
        OSError: a copy from before a migration cannot be removed.
    """
    for sought in await store.read(erasing.pending):
        await _erase_everywhere(store, sought)
    await asyncio.to_thread(remove_copies, store.path)
    left = [] if backups is None else await backups.remove_all(forget_missing=last)
    if await store.empty_log():
        await store.write(erasing.copies_removed)
    else:
        left.append("the write-ahead log still holds the text: emptying it is tried again")
    return left


async def _erase_everywhere(store: StoreThreads, sought: Sought) -> None:
    """Removes a text from the rows of other facts, and notes which of them keep it."""
    kept: list[tuple[str, str]] = []
    for table in erasing.TABLES:
        after, more = None, True
        while more:
            page = await store.read(partial(erasing.look, sought=sought, table=table, after=after))
            if page.changes:
                await store.write(partial(erasing.clean, changes=page.changes))
            kept += page.kept
            after, more = page.last, page.last is not None
    lines = erasing.kept_by_others(sought, kept)
    for line in lines:
        logger.warning("of the erased fact %s, %s", sought.fact_id, line)
    await store.write(partial(erasing.close, sought=sought, kept=lines))


def _copied_from(store: MemoryStore, fact_id: str) -> list[str]:
    """The memories that may have the fact too, because this one was copied from them."""
    accepted_at = store.fact(fact_id).accepted_at
    return [
        f"this memory is a copy, first served {origin.at:%Y-%m-%d}, of memory"
        f" {origin.memory_id[:8]}: that one and its backups may have the text"
        for origin in identity.origins(store.connection)
        if accepted_at < origin.at
    ]
