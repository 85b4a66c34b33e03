"""Sends events to watchers. They are read from the database once, for all watchers.

Stored events are ordered by sequence number, not by time. A passing event (a step) comes after
everything stored before it happened, and before everything stored later.
"""

from __future__ import annotations

import asyncio
import itertools
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from agent.server.api.pacer import Pacer
from agent.wire import codec
from continual.v1 import memory_pb2 as pb
from memory_store.history_thinning import thinned_up_to
from memory_store.store import MemoryStore
from memory_store.vocabulary import Event, EventKind
from memory_store.writer import StoreThreads

PAGE = 500
# Stored events kept in memory. Watchers that are further behind read pages of the database.
MAX_RECENT = 4 * PAGE
# Passing events kept for slow watchers. Older ones are dropped.
MAX_PASSING = 256
# Limits of one message, in events and bytes. Clients accept 4 MiB by default.
MAX_TOGETHER = 200
MAX_BYTES_TOGETHER = 1024 * 1024
# The smallest page. Not much larger than a message: a stalled watcher holds the rest in memory.
LEAST_PAGE = 20
# Watchers that may read pages at the same time, so that other readers get their turn.
CATCHING_UP = 2


@dataclass(frozen=True, slots=True)
class Happened:
    """An event, encoded once for all watchers.

    Attributes:
        event: the record.
        message: its message.
        size: bytes of the message.
        place: the sequence number of a stored event; for a passing event, the sequence number of
            the last event stored before it.
        number: the number of a passing event, from 1; 0 for a stored event.
    """

    event: Event
    message: pb.Event
    size: int
    place: int
    number: int = 0

    @classmethod
    def of(cls, event: Event, place: int, number: int = 0) -> Happened:
        """Encodes an event."""
        message = codec.EVENT.encode(event)
        return cls(event, message, message.ByteSize(), place, number)


@dataclass(slots=True, eq=False)
class _Watcher:
    """The position of a watcher: the last stored event and the last passing event it has seen.

    `gap` is the end of the last range of missing events that was reported to it.
    """

    sequence: int
    passing: int
    fact_ids: Collection[str]
    gap: int = 0

    def wants(self, happened: Happened) -> bool:
        return not self.fact_ids or happened.event.fact_id in self.fact_ids


class EventHub:
    """Follows the database while there are watchers, and passes new events on.

    A watcher only holds its position, so a stalled one costs no memory. It misses no stored event:
    what is no longer in memory, it reads from the database.
    """

    def __init__(self) -> None:
        self._watchers: set[_Watcher] = set()
        self._closed = False
        self._committed = 0
        self._reading: asyncio.Task[None] | None = None
        self._started = asyncio.Event()
        self._more = asyncio.Event()
        self._news = asyncio.Event()
        self._pacer = Pacer()
        self._catching_up = asyncio.Semaphore(CATCHING_UP)
        self._numbers = itertools.count(1)
        self._forget_all()

    def stored(self, sequence: int) -> None:
        """Reports a commit, with the sequence number of the newest event."""
        self._committed = max(self._committed, sequence)
        if self._committed > self._tail:
            self._more.set()

    def publish(self, event: Event) -> None:
        """Sends a passing event to the current watchers."""
        if self._watchers:
            place = max(self._committed, self._tail)
            self._passing.append(Happened.of(event, place, next(self._numbers)))
            self._wake()

    def forget_kept(self) -> None:
        """Drops the events in memory, after a text was erased that they may contain.

        Watchers that have not seen them read them from the database.
        """
        if self._stored:
            self._dropped = self._stored[-1].place
            self._stored.clear()
        self._passing.clear()

    def close(self) -> None:
        """Ends every stream. An open one would delay the stop of the server by its grace period."""
        self._closed = True
        self._pacer.close()
        self._stop_reading()
        self._wake()

    async def watch(
        self,
        store: StoreThreads,
        after_sequence: int,
        fact_ids: Collection[str] = (),
        together: int = MAX_TOGETHER,
    ) -> AsyncGenerator[Sequence[Happened], None]:
        """Yields lists of events as they happen, until the hub is closed.

        Args:
            store: the memory.
            after_sequence: the last event already seen; negative to begin with the next event.
            fact_ids: only events of these facts; empty for all.
            together: the most events in one list.

        Raises:
            StoreUnusableError: the database cannot be read.
        """
        watcher = _Watcher(after_sequence, self._last_passing, frozenset(fact_ids))
        self._watchers.add(watcher)
        try:
            if after_sequence < 0:
                watcher.sequence = await store.read(MemoryStore.last_event_sequence)
            while not self._closed:
                await self._follow(store)
                if self._closed:
                    return
                # Taken before the look, so that no later event is missed.
                news = self._news
                if watcher.sequence < self._dropped:
                    async with self._catching_up:
                        found = await self._page(store, watcher, max(together, LEAST_PAGE))
                    await self._pacer.turn()
                else:
                    if not self._has_news_for(watcher):
                        await news.wait()
                    # Once it has its turn, it gets everything that happened while it waited.
                    await self._pacer.turn()
                    found = self._recent(watcher)
                for number, some in enumerate(_portions(found, together)):
                    if number:
                        await self._pacer.turn()  # one turn for each message
                    yield some
        finally:
            self._watchers.discard(watcher)
            if not self._watchers:
                self._stop_reading()

    # -- What is new -------------------------------------------------------------------------

    async def _follow(self, store: StoreThreads) -> None:
        """Starts the reader if there is none; raises its error if it has failed."""
        reading = self._reading or asyncio.create_task(self._read_on(store))
        self._reading = reading
        if not self._started.is_set():
            started = asyncio.ensure_future(self._started.wait())
            await asyncio.wait([started, reading], return_when=asyncio.FIRST_COMPLETED)
            started.cancel()
        if reading.done() and not reading.cancelled():
            if self._reading is reading:
                self._stop_reading()
            reading.result()

    async def _read_on(self, store: StoreThreads) -> None:
        """Reads new events for all watchers, until it is cancelled."""
        try:
            self._tail = self._dropped = await store.read(MemoryStore.last_event_sequence)
            self._started.set()
            while True:
                # Cleared before the look, so that no later commit is missed.
                self._more.clear()
                committed = self._committed
                page = partial(MemoryStore.events, after_sequence=self._tail, limit=PAGE)
                events = await store.read(page)
                for event in events:
                    self._keep(event)
                if len(events) == PAGE:
                    self._wake()
                    continue
                self._tail = max(self._tail, committed)  # the last ones may be thinned out
                self._wake()
                await self._more.wait()
        finally:
            self._wake()

    def _keep(self, event: Event) -> None:
        self._stored.append(Happened.of(event, event.sequence))
        self._tail = event.sequence
        # The text of a forgotten fact may have been erased, so no earlier event stays in memory.
        most = 1 if event.kind is EventKind.FORGOTTEN else 2 * MAX_RECENT
        if len(self._stored) > most:
            kept = min(most, MAX_RECENT)
            self._dropped = self._stored[-kept - 1].place
            del self._stored[:-kept]

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
            self._forget_all()

    def _forget_all(self) -> None:
        self._stored: list[Happened] = []  # the newest, by sequence number
        self._tail = 0  # the last event that was read
        self._dropped = 0  # the last event that is no longer in memory
        self._passing: deque[Happened] = deque(maxlen=MAX_PASSING)
        self._started.clear()

    def _wake(self) -> None:
        # Replaced each time: waiters hold the old one.
        self._news.set()
        self._news = asyncio.Event()

    # -- What a watcher gets next ------------------------------------------------------------

    @property
    def _last_passing(self) -> int:
        return self._passing[-1].number if self._passing else 0

    def _has_news_for(self, watcher: _Watcher) -> bool:
        return watcher.sequence < self._tail or watcher.passing < self._last_passing

    def _recent(self, watcher: _Watcher) -> list[Happened]:
        """Takes the events in memory that the watcher has not seen, in order."""
        begin = bisect_right(self._stored, watcher.sequence, key=lambda each: each.place)
        stored = self._stored[begin : begin + PAGE]
        if begin + PAGE < len(self._stored):
            watcher.sequence = stored[-1].place
        else:
            watcher.sequence = max(watcher.sequence, self._tail)
        passing = [
            each
            for each in self._passing
            # One that happened after events that it has yet to get waits for them.
            if each.number > watcher.passing and each.place <= watcher.sequence
        ]
        if passing:
            watcher.passing = passing[-1].number
        # Stable, so each kind stays in its own order; at one place, a stored event is first.
        both = sorted([*stored, *passing], key=lambda each: each.place)
        return [each for each in both if watcher.wants(each)]

    async def _page(self, store: StoreThreads, watcher: _Watcher, limit: int) -> list[Happened]:
        """Reads a page of stored events that are no longer in memory.

        A `GAP` event precedes the events of a range that was thinned out.
        """
        after, fact_ids = watcher.sequence, tuple(watcher.fact_ids)
        dropped = self._dropped
        thinned, events = await store.read(
            lambda store: (
                thinned_up_to(store),
                store.events(after_sequence=after, limit=limit, fact_ids=fact_ids),
            )
        )
        # A short page was the last one: the rest of these facts' events is in memory.
        last = events[-1].sequence if events else watcher.sequence
        watcher.sequence = last if len(events) == limit else max(last, dropped)
        found = [Happened.of(event, event.sequence) for event in events]
        if max(after, watcher.gap) < thinned:
            watcher.gap = thinned
            found.insert(0, Happened.of(_gap(after + 1, thinned), after))
        return found


def _gap(first: int, last: int) -> Event:
    return Event(
        sequence=0,
        kind=EventKind.GAP,
        at=datetime.now(UTC),
        message=f"of the events {first} to {last}, only the results of learning are kept",
    )


def _portions(found: Iterable[Happened], together: int) -> Iterable[Sequence[Happened]]:
    """Splits events into lists that fit one message, with at least one event each."""
    portion: list[Happened] = []
    size = 0
    for each in found:
        if portion and (len(portion) >= together or size + each.size > MAX_BYTES_TOGETHER):
            yield portion
            portion, size = [], 0
        portion.append(each)
        size += each.size
    if portion:
        yield portion
