"""After a fact was forgotten: removing what still holds it outside the tables."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial

from agent.server.data.backups import Backups
from memory_store import erasure, identity, ledger, unsearched
from memory_store.schema_copies import remove_copies
from memory_store.sought import Sought
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
    asks to erase learns of them.

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
    unread = await _remove_unread(store, operation.fact_id)
    left = await remove_text(store, backups, last=True)
    kept = await store.read(partial(erasure.kept_of, fact_id=operation.fact_id))
    origins = await store.read(partial(_copied_from, fact_id=operation.fact_id))
    return "; ".join((*kept, *unread, *left, *origins))


async def remove_text(
    store: StoreThreads, backups: Backups | None, *, last: bool = False
) -> list[str]:
    """Removes erased texts from rows of other facts, and from what was copied from the database.

    Args:
        store: the memory.
        backups: of this memory; None: there are none.
        last: an operation reports what is left, and ends.

    Returns:
        Which copies are left, for people. Which facts keep a text: see `erasure.kept_of`.

    Raises:
        OSError: a copy from before a migration cannot be removed.
    """
    pending = await store.read(erasure.pending)
    for first in range(0, len(pending), erasure.TEXTS_TOGETHER):
        await _erase_everywhere(store, pending[first : first + erasure.TEXTS_TOGETHER])
    await asyncio.to_thread(remove_copies, store.path)
    left = [] if backups is None else await backups.remove_all(forget_missing=last)
    if await store.empty_log():
        await store.write(erasure.copies_removed)
    else:
        left.append("the write-ahead log still holds the text: emptying it is tried again")
    return left


async def _erase_everywhere(store: StoreThreads, sought: Sequence[Sought]) -> None:
    """Removes texts from the rows of other facts, and notes which of them keep one."""
    end = await store.read(unsearched.rows_from_now)
    kept: list[tuple[str, str, str]] = []
    for table in erasure.TABLES:
        after, more = None, True
        while more:
            page = await store.read(partial(erasure.look, sought=sought, table=table, after=after))
            if page.changes:
                await store.write(partial(erasure.clean, changes=page.changes))
            kept += page.kept
            after, more = page.last, page.last is not None
    for each in sought:
        lines = erasure.kept_by_others(each, kept)
        for line in lines:
            logger.warning("of the erased fact %s, %s", each.fact_id, line)
        await store.write(partial(erasure.close, sought=each, kept=lines, end=end))


async def _remove_unread(store: StoreThreads, fact_id: str) -> list[str]:
    """Removes answers that no search has seen, if the text is not known any more.

    Returns:
        That it did so, for people; empty if there was nothing to remove.
    """
    if any(each.fact_id == fact_id for each in await store.read(erasure.pending)):
        return []  # it is known, and they are searched
    rows = await store.read(partial(unsearched.of_fact, fact_id=fact_id))
    if rows is None:
        return []
    last = await store.read(unsearched.rows_from_now)
    removed = 0
    for after in range(rows.probe, last.probe, unsearched.ROWS_AT_ONCE):
        removed += await store.write(partial(unsearched.remove_probes, after=after))
    for after in range(rows.event, last.event, unsearched.ROWS_AT_ONCE):
        removed += await store.write(partial(unsearched.remove_events, after=after))
    if not removed:
        return []
    return [
        f"answers recorded since {rows.since:%Y-%m-%d %H:%M} UTC were removed unread: after a"
        " restart nobody knew the text to look for, and the weights had not forgotten it yet"
    ]


def _copied_from(store: MemoryStore, fact_id: str) -> list[str]:
    """The memories that may have the fact too, because this one was copied from them."""
    accepted_at = store.fact(fact_id).accepted_at
    return [
        f"this memory is a copy, first served {origin.at:%Y-%m-%d}, of memory"
        f" {origin.memory_id[:8]}: that one and its backups may have the text"
        for origin in identity.origins(store.connection)
        if accepted_at < origin.at
    ]
