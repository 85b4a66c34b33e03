"""The hub: stored events from any point on, passing ones live, and streams that end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.service.events import MAX_PASSING, PAGE, EventHub
from memory_store.records import Event, EventKind
from memory_store.writer import StoreThreads
from tests.store.builders import new_fact


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
    events = await watched.take(watched.hub.watch(watched.store, 2), 2)
    assert [event.sequence for event in events] == [3, 4]


async def test_a_replay_of_several_pages_is_in_order_and_whole(watched: Watched) -> None:
    count = 2 * PAGE + 1
    await watched.store.write(
        lambda store: [store.teach(new_fact(f"Question {n}?")) for n in range(count)]
    )
    events = await watched.take(watched.hub.watch(watched.store, 0), count)
    assert [event.sequence for event in events] == list(range(1, count + 1))


async def test_a_waiting_watcher_gets_what_happens_next(watched: Watched) -> None:
    stream = watched.hub.watch(watched.store, 0)
    for number in (1, 2):
        coming = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        fact_id = await watched.teach(f"Question {number}?")
        event = await asyncio.wait_for(coming, 10)
        assert (event.sequence, event.fact_id) == (number, fact_id)


async def test_minus_one_begins_with_what_happens_next(watched: Watched) -> None:
    await watched.teach("Before?")
    stream = watched.hub.watch(watched.store, -1)
    coming = asyncio.ensure_future(anext(stream))
    # The watcher's look at the newest sequence is queued before the fact is.
    await asyncio.sleep(0)
    await watched.store.read(lambda store: None)
    after = await watched.teach("After?")
    assert (await asyncio.wait_for(coming, 10)).fact_id == after


async def test_only_events_of_the_facts_asked_for(watched: Watched) -> None:
    ids = [await watched.teach(f"Question {number}?") for number in range(3)]
    stream = watched.hub.watch(watched.store, 0, fact_ids=(ids[1],))
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
    stream = watched.hub.watch(watched.store, 0)
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
    stream = watched.hub.watch(watched.store, 0)
    await watched.teach("First?")
    await watched.take(stream, 1)
    watched.step(1)
    await watched.teach("Second?")
    watched.step(2)
    events = await watched.take(stream, 3)
    assert [event.message or event.sequence for event in events] == ["1", 2, "2"]


async def test_closing_ends_waiting_streams_and_those_that_come_later(watched: Watched) -> None:
    async def all_events() -> list[Event]:
        return [event async for event in watched.hub.watch(watched.store, 0)]

    waiting = asyncio.create_task(all_events())
    await watched.store.read(lambda store: None)
    watched.hub.close()
    assert await asyncio.wait_for(waiting, 10) == []
    assert await asyncio.wait_for(all_events(), 10) == []


async def test_a_watcher_that_left_is_forgotten(watched: Watched) -> None:
    await watched.teach("First?")
    stream = watched.hub.watch(watched.store, 0)
    await watched.take(stream, 1)
    assert len(watched.hub._watchers) == 1
    await stream.aclose()  # type: ignore[attr-defined] # it is a generator
    assert watched.hub._watchers == set()
