"""The hub: stored events from any point on, passing ones live, and streams that end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.server.api.events import LEAST_PAGE, MAX_PASSING, MAX_RECENT, PAGE, EventHub
from memory_store.errors import StoreUnusableError
from memory_store.history_thinning import Thinning
from memory_store.store import MemoryStore
from memory_store.vocabulary import Event, EventKind
from memory_store.writer import StoreThreads
from tests.store.builders import new_fact, teach_learned


class Watched:
    """A hub over a real store."""

    def __init__(self, hub: EventHub, store: StoreThreads) -> None:
        self.hub, self.store = hub, store

    async def teach(self, question: str) -> str:
        accepted = await self.store.write(lambda store: store.teach(new_fact(question)))
        return accepted.fact.id

    def step(self, number: int, fact_id: str = "") -> None:
        self.hub.publish(
            Event(
                sequence=0,
                kind=EventKind.STEP,
                at=datetime.now(UTC),
                fact_id=fact_id,
                message=str(number),
            )
        )

    async def follow(
        self, after_sequence: int, fact_ids: Collection[str] = ()
    ) -> AsyncGenerator[Event, None]:
        """One after the other."""
        seen = self.hub.watch(self.store, after_sequence, fact_ids)
        async with aclosing(seen):
            async for some in seen:
                for happened in some:
                    yield happened.event

    async def take(self, stream: AsyncIterator[Event], count: int) -> list[Event]:
        async with asyncio.timeout(10):
            return [await anext(stream) for _ in range(count)]


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    hub = EventHub()
    store = await StoreThreads.open(tmp_path / "memory.db", on_commit=hub.stored)
    yield Watched(hub, store)
    await store.close()


async def test_a_watcher_resumes_after_the_sequence_it_has_seen(watched: Watched) -> None:
    for number in range(4):
        await watched.teach(f"Question {number}?")
    events = await watched.take(watched.follow(2), 2)
    assert [event.sequence for event in events] == [3, 4]


async def test_a_replay_of_several_pages_is_in_order_and_whole(watched: Watched) -> None:
    count = 2 * PAGE + 1
    await watched.store.write(
        lambda store: [store.teach(new_fact(f"Question {n}?")) for n in range(count)]
    )
    events = await watched.take(watched.follow(0), count)
    assert [event.sequence for event in events] == list(range(1, count + 1))


async def test_a_waiting_watcher_gets_what_happens_next(watched: Watched) -> None:
    stream = watched.follow(0)
    for number in (1, 2):
        coming = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        fact_id = await watched.teach(f"Question {number}?")
        event = await asyncio.wait_for(coming, 10)
        assert (event.sequence, event.fact_id) == (number, fact_id)


async def test_minus_one_begins_with_what_happens_next(watched: Watched) -> None:
    await watched.teach("Before?")
    stream = watched.follow(-1)
    coming = asyncio.ensure_future(anext(stream))
    # The watcher's look at the newest sequence is queued before the fact is.
    await asyncio.sleep(0)
    await watched.store.read(lambda store: None)
    after = await watched.teach("After?")
    assert (await asyncio.wait_for(coming, 10)).fact_id == after


async def test_only_events_of_the_facts_asked_for(watched: Watched) -> None:
    ids = [await watched.teach(f"Question {number}?") for number in range(3)]
    stream = watched.follow(0, fact_ids=(ids[1],))
    [stored] = await watched.take(stream, 1)
    assert stored.fact_id == ids[1]
    coming = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    watched.step(1, ids[0])
    watched.step(2, ids[1])
    assert (await asyncio.wait_for(coming, 10)).message == "2"


async def test_a_stalled_watcher_keeps_the_newest_steps_and_every_stored_event(
    watched: Watched,
) -> None:
    stream = watched.follow(0)
    await watched.teach("First?")
    await watched.take(stream, 1)  # from here on it is stalled
    for number in range(MAX_PASSING + 50):
        watched.step(number)
    await watched.teach("Second?")
    events = await watched.take(stream, MAX_PASSING + 1)
    steps = [int(event.message) for event in events if event.kind == EventKind.STEP]
    assert steps == list(range(50, MAX_PASSING + 50))
    assert [event.sequence for event in events if event.sequence] == [2]


async def test_steps_come_between_the_stored_events_of_their_time(watched: Watched) -> None:
    stream = watched.follow(0)
    await watched.teach("First?")
    await watched.take(stream, 1)
    watched.step(1)
    await watched.teach("Second?")
    watched.step(2)
    events = await watched.take(stream, 3)
    assert [event.message or event.sequence for event in events] == ["1", 2, "2"]


async def test_closing_ends_waiting_streams_and_those_that_come_later(watched: Watched) -> None:
    async def all_events() -> list[Event]:
        return [event async for event in watched.follow(0)]

    waiting = asyncio.create_task(all_events())
    await watched.store.read(lambda store: None)
    watched.hub.close()
    assert await asyncio.wait_for(waiting, 10) == []
    assert await asyncio.wait_for(all_events(), 10) == []


async def test_a_watcher_that_left_is_forgotten(watched: Watched) -> None:
    await watched.teach("First?")
    stream = watched.follow(0)
    await watched.take(stream, 1)
    assert len(watched.hub._watchers) == 1
    await stream.aclose()
    assert watched.hub._watchers == set()


async def test_a_clock_set_back_changes_no_order_and_loses_nothing_for_who_resumes(
    tmp_path: Path,
) -> None:
    """M6: events were sorted by time, so that the last one seen was not the last one of all."""
    hub = EventHub()
    times = [datetime(2026, 1, 1, 12, tzinfo=UTC) - timedelta(hours=n) for n in range(4)]
    clock = iter(times)
    store = await StoreThreads.open(
        tmp_path / "memory.db",
        on_commit=hub.stored,
        open_store=lambda path, **options: MemoryStore.open(
            path, now=lambda: next(clock), **options
        ),
    )
    watched = Watched(hub, store)
    for number in range(4):
        await watched.teach(f"Question {number}?")
    stream = watched.follow(0)
    seen = await watched.take(stream, 2)  # its connection breaks here
    await stream.aclose()
    seen += await watched.take(watched.follow(seen[-1].sequence), 2)
    assert [event.sequence for event in seen] == [1, 2, 3, 4]
    assert [event.at for event in seen] == times
    await store.close()


async def test_a_step_comes_after_what_was_stored_before_it_whatever_its_time(
    watched: Watched,
) -> None:
    """M6: with a clock set back, too."""
    stream = watched.follow(0)
    await watched.teach("First?")
    await watched.take(stream, 1)
    await watched.teach("Second?")
    early = datetime(2000, 1, 1, tzinfo=UTC)
    watched.hub.publish(Event(sequence=0, kind=EventKind.STEP, at=early, message="step"))
    await watched.teach("Third?")
    events = await watched.take(stream, 3)
    assert [event.message or event.sequence for event in events] == [2, "step", 3]


class Reads:
    """Counts the pages of events that are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pages = 0
        events = MemoryStore.events

        def counted(store: MemoryStore, **options: Any) -> list[Event]:
            self.pages += 1
            return events(store, **options)

        monkeypatch.setattr(MemoryStore, "events", counted)


async def test_what_happens_is_read_once_for_all_watchers(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M7: each of them read, decoded and encoded every event."""
    await watched.teach("Before?")
    streams = [watched.follow(1) for _ in range(50)]
    coming = [asyncio.ensure_future(anext(stream)) for stream in streams]
    await watched.store.read(lambda store: None)
    reads = Reads(monkeypatch)
    await watched.teach("After?")
    async with asyncio.timeout(10):
        assert {event.sequence for event in await asyncio.gather(*coming)} == {2}
    assert reads.pages <= 2  # of the one reader
    for stream in streams:
        await stream.aclose()


async def test_who_is_far_behind_reads_pages_and_joins_the_others(watched: Watched) -> None:
    """M7: nothing is missed or doubled where pages end and what is kept begins."""
    ahead = watched.follow(0)
    await watched.teach("First?")
    await watched.take(ahead, 1)
    behind = watched.follow(0)
    await watched.take(behind, 1)  # from here on it is stalled
    count = 2 * MAX_RECENT + 10
    for number in range(0, count, 10):
        await watched.store.write(
            lambda store, number=number: [  # type: ignore[misc]
                store.teach(new_fact(f"Question {number + n}?")) for n in range(10)
            ]
        )
        await watched.take(ahead, 10)
    assert watched.hub._dropped > 1
    assert len(watched.hub._stored) <= 2 * MAX_RECENT
    events = await watched.take(behind, count)
    assert [event.sequence for event in events] == list(range(2, count + 2))
    coming = asyncio.ensure_future(anext(behind))
    await watched.teach("Last?")
    assert (await asyncio.wait_for(coming, 10)).sequence == count + 2


async def test_what_was_said_of_a_forgotten_fact_is_not_kept(watched: Watched) -> None:
    """M7: an erase reaches what is in memory too."""
    stream = watched.follow(0)
    await watched.teach("Secret?")
    await watched.take(stream, 1)

    def forget(store: MemoryStore) -> None:
        with store.transaction():
            store.emit(EventKind.FORGOTTEN, store.now(), fact_id="some")

    await watched.store.write(forget)
    await watched.take(stream, 1)
    assert [each.event.kind for each in watched.hub._stored] == [EventKind.FORGOTTEN]
    assert await watched.take(watched.follow(0), 2)  # from the database


async def test_an_error_of_the_database_reaches_every_watcher_and_is_not_for_ever(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = [watched.follow(0) for _ in range(3)]
    with monkeypatch.context() as broken:

        def fail(store: MemoryStore) -> int:
            raise StoreUnusableError("it cannot be read")

        broken.setattr(MemoryStore, "last_event_sequence", fail)
        for stream in streams:
            with pytest.raises(StoreUnusableError):
                await asyncio.wait_for(anext(stream), 10)
    await watched.teach("First?")
    assert (await watched.take(watched.follow(0), 1))[0].sequence == 1


async def test_who_resumes_where_events_were_thinned_out_is_told_of_the_gap(
    watched: Watched,
) -> None:  # M15
    for number in range(30):
        await watched.store.write(partial(teach_learned, question=f"question {number}"))
    thinning = Thinning(keep_events=10)
    while await watched.store.write(thinning.piece) is not None:
        pass
    kept = await watched.store.read(lambda store: store.events(limit=100))
    learned = [event for event in kept if event.sequence <= 80]
    assert {event.kind for event in learned} == {EventKind.LEARNED}

    gap, *rest = await watched.take(watched.follow(5), 1 + len(kept[1:]))
    assert (gap.kind, gap.sequence) == (EventKind.GAP, 0)
    assert gap.message == "of the events 6 to 80, only the results of learning are kept"
    assert rest == kept[1:]
    # Of some facts, too: something of theirs may be missing.
    [gap, last] = await watched.take(watched.follow(0, [kept[0].fact_id]), 2)
    assert (gap.kind, last) == (EventKind.GAP, kept[0])
    # Nothing is missing from there on.
    assert await watched.take(watched.follow(80), 10) == kept[-10:]


async def test_a_stalled_watcher_that_is_behind_holds_a_short_page(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M7: thousands of them must not fill the memory."""
    await watched.store.write(
        lambda store: [store.teach(new_fact(f"Question {n}?")) for n in range(3 * LEAST_PAGE)]
    )
    limits: list[int] = []
    events = MemoryStore.events

    def noted(store: MemoryStore, **options: Any) -> list[Event]:
        limits.append(options["limit"])
        return events(store, **options)

    stream = watched.hub.watch(watched.store, 0, together=1)
    await anext(stream)
    monkeypatch.setattr(MemoryStore, "events", noted)
    for _ in range(3 * LEAST_PAGE - 1):
        await asyncio.wait_for(anext(stream), 10)
    assert set(limits) == {LEAST_PAGE}
    await stream.aclose()
