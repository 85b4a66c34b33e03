"""Faults that need no process of their own: a jumping clock, a poison fact, a stalled watcher."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from agent.config import DEFAULT_MAX_ATTEMPTS as MAX_ATTEMPTS
from agent.server.api.events import MAX_PASSING, EventHub
from memory_store.facts import count_by_state
from memory_store.store import MemoryStore
from memory_store.vocabulary import Event, EventKind, FactState, NewFact
from memory_store.writer import StoreThreads
from tests.faults.findings import ALL, Findings, check_memory
from tests.faults.killing import end_of
from tests.faults.running import living
from tests.faults.store_child import learn_one
from tests.store.builders import ledger_rows

PASSING = 5_000
PAGE = 7


def jumping_clock(chance: random.Random) -> Callable[[], datetime]:
    """A clock that is set forwards and backwards by up to ten years at any moment."""
    now = datetime(2024, 2, 29, tzinfo=UTC)

    def tick() -> datetime:
        nonlocal now
        if chance.random() < 0.3:
            now += timedelta(days=chance.uniform(-3650, 3650))
            now = max(now, datetime(1971, 1, 1, tzinfo=UTC))
        return now

    return tick


def run_clock(folder: Path, cases: int, seed: int) -> Findings:
    """So many memories under such clocks: order, pages and ledger are those of a steady one."""
    findings = Findings(kind="jumping clock", seed=seed)
    chance = random.Random(seed)
    for number in range(cases):
        path = folder / f"clock-{number}.db"
        taught: list[str] = []
        with MemoryStore.open(path, now=jumping_clock(chance)) as store:
            for question in range(40):
                new = NewFact(question=f"{question}?", answer="a", fact_id=f"fact-{question}")
                taught.append(store.teach(new).fact.id)
                if chance.random() < 0.5 and count_by_state(store.connection)[FactState.QUEUED]:
                    learn_one(store)
        with MemoryStore.open(path) as store:
            findings.cases += 1
            check_memory(store, taught, findings, path.name)
            learned = [row.fact_id for row in ledger_rows(store.connection)]
            if learned != taught[: len(learned)] or _paged(store) != taught:
                findings.diverge(f"{path.name}: the order depends on the clock")
    return findings


def _paged(store: MemoryStore) -> list[str]:
    seen: list[str] = []
    after = 0
    while page := store.facts(after_position=after, limit=PAGE):
        seen += [fact.id for fact in page]
        after = page[-1].position
    return seen


async def run_poison(folder: Path, cases: int, seed: int) -> Findings:
    """So many memories with poison facts: these are quarantined, and leave no trace in the rest."""
    findings = Findings(kind="poison fact", seed=seed)
    chance = random.Random(seed)
    for number in range(cases):
        poison = set(chance.sample(range(12), 3))
        with_it, without = folder / f"poison-{number}", folder / f"without-{number}"
        await _learn(with_it, [(n, n in poison) for n in range(12)])
        await _learn(without, [(n, False) for n in range(12) if n not in poison])
        findings.cases += 1
        with MemoryStore.open(with_it / "memory.db") as store:
            check_memory(store, [f"fact-{n}" for n in range(12)], findings, with_it.name)
            stuck = store.facts(limit=ALL, states=[FactState.QUARANTINED])
        if [(f.id, f.failed_attempts) for f in stuck] != [
            (f"fact-{n}", MAX_ATTEMPTS) for n in sorted(poison)
        ]:
            findings.diverge(f"{with_it.name}: quarantined {[f.id for f in stuck]}")
        if end_of(with_it).digest != end_of(without).digest:
            findings.diverge(f"{with_it.name}: other weights than without the poison")
    return findings


async def _learn(folder: Path, facts: list[tuple[int, bool]]) -> None:
    async with living(folder) as life:
        for number, poisonous in facts:
            answer = "poison" if poisonous else "good"
            new = NewFact(question=f"{number}?", answer=answer, fact_id=f"fact-{number}")
            await life.store.write(partial(MemoryStore.teach, new=new))
        await life.settle()


async def run_stalled(folder: Path, cases: int, seed: int) -> Findings:
    """So many watchers that stop reading while events pass by: little is held, none is missed."""
    findings = Findings(kind="stalled event subscriber", seed=seed)
    chance = random.Random(seed)
    for number in range(cases):
        hub = EventHub()
        store = await StoreThreads.open(folder / f"watched-{number}.db", on_commit=hub.stored)
        try:
            await _stall(hub, store, chance, findings)
        finally:
            await store.close()
        findings.cases += 1
    return findings


async def _stall(
    hub: EventHub, store: StoreThreads, chance: random.Random, findings: Findings
) -> None:
    await store.write(lambda opened: opened.teach(NewFact(question="First?", answer="a")))
    stream = hub.watch(store, 0)
    got = [each.event for each in await anext(stream)]  # from here on it is stalled
    stored = 1
    for number in range(PASSING):
        hub.publish(_passing(number))
        if chance.random() < 0.01:
            new = NewFact(question=f"{number}?", answer="a")
            await store.write(partial(MemoryStore.teach, new=new))
            stored += 1
    if len(hub._passing) > MAX_PASSING:
        findings.diverge(f"{len(hub._passing)} passing events are held")
    async with asyncio.timeout(10):
        while sum(event.sequence > 0 for event in got) < stored:
            got += [each.event for each in await anext(stream)]
    await stream.aclose()
    sequences = [event.sequence for event in got if event.sequence]
    findings.lose(set(range(1, stored + 1)) - set(sequences), "stored events")
    if sequences != sorted(set(sequences)):
        findings.diverge("stored events came twice or out of order")


def _passing(number: int) -> Event:
    return Event(sequence=0, kind=EventKind.STEP, at=datetime.now(UTC), message=str(number))
