"""A clock that is only ever set back, while a memory learns and watchers come and go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from agent.server.api.events import EventHub
from memory_store import schedule
from memory_store.store import MemoryStore
from memory_store.vocabulary import NewFact
from memory_store.writer import StoreThreads
from tests.faults.findings import ALL, Findings, check_memory
from tests.faults.killing import end_of
from tests.faults.running import living

FACTS = 12
WATCHERS = 3
START = datetime(2026, 1, 1, tzinfo=UTC)


def set_back(chance: random.Random) -> Callable[[], datetime]:
    """Goes on by a second at every look, and is set back by up to a year now and then."""
    now = START

    def look() -> datetime:
        nonlocal now
        now += timedelta(seconds=1)
        if chance.random() < 0.1:
            now -= timedelta(days=chance.uniform(0, 365))
        return now

    return look


def steady() -> Callable[[], datetime]:
    """Goes on by a second at every look."""
    seconds = 0

    def look() -> datetime:
        nonlocal seconds
        seconds += 1
        return START + timedelta(seconds=seconds)

    return look


async def run(folder: Path, cases: int, seed: int) -> Findings:
    """So many memories under such a clock: each is as under a steady one, and no watcher, however
    often its connection breaks, misses an event."""
    findings = Findings(kind="a clock set back", seed=seed)
    chance = random.Random(seed)
    for number in range(cases):
        back, forth = folder / f"back-{number}", folder / f"steady-{number}"
        seen = await _live(back, set_back(chance), chance)
        await _live(forth, steady(), chance)
        findings.cases += 1
        with MemoryStore.open(back / "memory.db") as store:
            check_memory(store, [f"fact-{n}" for n in range(FACTS)], findings, back.name)
            stored = [event.sequence for event in store.events(limit=ALL)]
            if _next_review(store) is None:
                findings.diverge(f"{back.name}: no fact is due for review")
        for sequences in seen:
            findings.lose(set(stored) - set(sequences), f"{back.name}: events")
            if sequences != sorted(set(sequences)):
                findings.diverge(f"{back.name}: events came twice or out of order")
        if end_of(back) != end_of(forth):
            findings.diverge(f"{back.name}: ended otherwise than under a steady clock")
    return findings


async def _live(
    folder: Path, clock: Callable[[], datetime], chance: random.Random
) -> list[list[int]]:
    """Teaches and learns; the sequence numbers that each watcher saw."""
    hub = EventHub()
    opening = partial(_open, clock)
    async with living(folder, open_store=opening, on_commit=hub.stored) as life:
        breaks = [random.Random(chance.random()) for _ in range(WATCHERS)]
        seen: list[list[int]] = [[] for _ in breaks]
        watching = [
            asyncio.create_task(_watch(hub, life.store, its, into))
            for its, into in zip(breaks, seen, strict=True)
        ]
        for number in range(FACTS):
            new = NewFact(question=f"{number}?", answer="good", fact_id=f"fact-{number}")
            await life.store.write(partial(MemoryStore.teach, new=new))
        await life.settle()
        last = await life.store.read(MemoryStore.last_event_sequence)
        async with asyncio.timeout(30):
            while any(not each or each[-1] < last for each in seen):
                await asyncio.wait(watching, timeout=0.01)
        hub.close()
        await asyncio.gather(*watching)
    return seen


def _open(clock: Callable[[], datetime], path: Path, *, read_only: bool = False) -> MemoryStore:
    return MemoryStore.open(path, read_only=read_only, now=clock)


async def _watch(
    hub: EventHub, store: StoreThreads, chance: random.Random, seen: list[int]
) -> None:
    """Resumes after the last event seen whenever its connection breaks, until the hub closes."""
    connected = True
    while connected:
        connected = False  # the stream ends by itself only when the hub closes
        stream = hub.watch(store, seen[-1] if seen else 0, together=3)
        async with aclosing(stream):
            async for some in stream:
                seen += [each.event.sequence for each in some if each.event.sequence]
                if connected := chance.random() < 0.3:
                    break


def _next_review(store: MemoryStore) -> str | None:
    """What is due once the longest interval has passed on a clock that was set back by years."""
    return schedule.next_due(store.connection, START - timedelta(days=3650))
