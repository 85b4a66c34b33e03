"""Events to watchers: stored ones from the database, passing ones from memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection
from functools import partial

from memory_store.records import Event
from memory_store.store import MemoryStore
from memory_store.writer import StoreThreads

PAGE = 500
# Steps that a slow watcher may have waiting; older ones are dropped, they are only passing.
MAX_PASSING = 256


class _Watcher:
    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self.passing: deque[Event] = deque(maxlen=MAX_PASSING)


class EventHub:
    """Wakes watchers when there is something new.

    A watcher holds no queue of stored events, only the sequence number it has reached, and reads
    on from there: a stalled one costs no memory, and none is ever missed.
    """

    def __init__(self) -> None:
        self._watchers: set[_Watcher] = set()
        self._closed = False

    def stored(self) -> None:
        """Something was committed."""
        for watcher in self._watchers:
            watcher.woken.set()

    def publish(self, event: Event) -> None:
        """Sends a passing event to those who watch now."""
        for watcher in self._watchers:
            watcher.passing.append(event)
            watcher.woken.set()

    def close(self) -> None:
        """Ends every stream: an open one would hold up the server's stop for its whole grace."""
        self._closed = True
        self.stored()

    async def watch(
        self, store: StoreThreads, after_sequence: int, fact_ids: Collection[str] = ()
    ) -> AsyncIterator[Event]:
        """Yields events as they happen, until the hub is closed.

        Args:
            store: where stored events are read from.
            after_sequence: the last one already seen; negative begins with what happens next.
            fact_ids: only events of these facts; empty means all.
        """
        watcher = _Watcher()
        self._watchers.add(watcher)
        try:
            if after_sequence < 0:
                after_sequence = await store.read(MemoryStore.last_event_sequence)
            while not self._closed:
                # Cleared before the look, so that what is committed after it wakes us again.
                watcher.woken.clear()
                passing = [e for e in watcher.passing if not fact_ids or e.fact_id in fact_ids]
                watcher.passing.clear()
                page = partial(
                    MemoryStore.events,
                    after_sequence=after_sequence,
                    limit=PAGE,
                    fact_ids=tuple(fact_ids),
                )
                stored = await store.read(page)
                if stored:
                    after_sequence = stored[-1].sequence
                for event in sorted([*stored, *passing], key=lambda e: e.at):
                    yield event
                if len(stored) < PAGE:
                    await watcher.woken.wait()
        finally:
            self._watchers.discard(watcher)
