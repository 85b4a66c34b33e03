"""Ticks: the clock that runs coroutines, and the audit that goes round all held facts."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from agent.errors import LearnerUnavailableError, LearningFailedError
from agent.server.loop import ticks as ticks_module
from agent.server.loop.ticks import RetentionAudit, Ticks
from memory_store.probes import of_fact as probes_of
from memory_store.vocabulary import FactState, ProbeKind
from tests.loop.conftest import World
from tests.loop.fake_learner import RIGHT, FakeLearner

SHORT = 0.05  # seconds


@pytest.fixture
def pages_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticks_module, "AUDITED_FACTS", 2)


@pytest.fixture
async def held(world: World) -> list[str]:
    """The questions of five held facts, some learned, some known, in order; and of no others."""
    questions = [f"{number}?" for number in range(5)]
    world.machine.verdicts = {"1?": "known", "3?": "known", "hard?": "resisted"}
    fact_ids = [await world.teach(question) for question in [*questions[:2], "hard?"]]
    fact_ids += [await world.teach(question) for question in questions[2:]]
    async with world.running():
        await world.until_state(fact_ids[-1], FactState.LEARNED)
    await world.teach("queued?")
    return questions


def audit_by(world: World, learner: FakeLearner) -> RetentionAudit:
    return RetentionAudit(world.store, lambda: learner)


@pytest.mark.usefixtures("pages_of_two")
async def test_the_audit_goes_round_all_held_facts(world: World, held: list[str]):
    audit = audit_by(world, FakeLearner(world.machine))
    for _ in range(3):
        await audit.tick()
    assert world.machine.probed == held
    await audit.tick()
    assert world.machine.probed == held + held[:2]


@pytest.mark.usefixtures("pages_of_two")
async def test_a_round_that_ends_with_a_full_page_begins_anew_too(world: World):
    fact_ids = [await world.teach(question) for question in ("a?", "b?")]
    async with world.running():
        await world.until_state(fact_ids[-1], FactState.LEARNED)
    audit = audit_by(world, FakeLearner(world.machine))
    for _ in range(3):
        await audit.tick()
    assert world.machine.probed == ["a?", "b?", "a?", "b?"]


async def test_what_an_audit_finds_is_stored_with_the_version_that_was_asked(world: World):
    fact_id = await world.teach("Sky?", correlated_questions=("Heaven?",))
    async with world.running():
        await world.until_state(fact_id, FactState.LEARNED)
    before = await world.store.read(lambda store: probes_of(store.connection, fact_id))
    await audit_by(world, world.machine.learners[0]).tick()
    (row, *rest) = await world.store.read(lambda store: probes_of(store.connection, fact_id))
    assert rest == before
    assert (row.kind, row.question, row.answer) == (ProbeKind.RETENTION, "Sky?", RIGHT.text)
    assert (row.correct, row.model_version, row.cause_fact_id) == (True, 1, "")


async def test_without_a_learner_a_tick_does_nothing(world: World, held: list[str]):
    await RetentionAudit(world.store, lambda: None).tick()
    assert world.machine.probed == []


@pytest.mark.usefixtures("pages_of_two")
async def test_an_audit_that_breaks_off_goes_on_after_the_fact_it_broke_off_at(
    world: World, held: list[str]
):
    learners = [FakeLearner(world.machine)]
    audit = RetentionAudit(world.store, lambda: learners[-1])
    await audit.tick()
    world.machine.faults["probe"] = [LearnerUnavailableError("killed")]
    await audit.tick()
    learners.append(FakeLearner(world.machine))
    await audit.tick()
    # A fact that kills learners must not do so at every tick.
    assert world.machine.probed == held


@pytest.mark.usefixtures("pages_of_two")
async def test_a_fact_that_cannot_be_probed_is_passed_over(world: World, held: list[str]):
    audit = audit_by(world, FakeLearner(world.machine))
    world.machine.faults["probe"] = [LearningFailedError("out of memory")]
    await audit.tick()
    assert world.machine.probed == held[:2]
    await audit.tick()
    assert world.machine.probed == held[:4]


async def test_an_action_runs_again_and_again_until_stop():
    runs: asyncio.Queue[int] = asyncio.Queue()
    ticks = Ticks()

    async def action() -> None:
        runs.put_nowait(1)

    ticks.every(SHORT, action)
    ticks.start()
    async with asyncio.timeout(10):
        for _ in range(3):
            await runs.get()
    ticks.stop()
    await asyncio.sleep(3 * SHORT)
    assert runs.empty()


async def test_an_interval_of_zero_means_never():
    runs: list[str] = []
    ticked = asyncio.Event()
    ticks = Ticks()

    async def never() -> None:
        runs.append("never")

    async def always() -> None:
        runs.append("always")
        if len(runs) >= 2:
            ticked.set()

    ticks.every(0, never)
    ticks.every(SHORT, always)
    ticks.start()
    await asyncio.wait_for(ticked.wait(), 10)
    ticks.stop()
    assert set(runs) == {"always"}


async def test_an_action_never_runs_twice_at_once():
    running, most = 0, 0
    done = asyncio.Event()
    ticks = Ticks()

    async def slow() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(3 * SHORT)
        running -= 1
        done.set()

    ticks.every(SHORT, slow)
    ticks.start()
    await asyncio.wait_for(done.wait(), 10)
    ticks.stop()
    assert most == 1


async def test_stop_may_come_before_start_and_twice():
    ticks = Ticks()
    ticks.stop()
    ticks.start()
    ticks.stop()
    ticks.stop()


async def test_a_clock_set_back_stops_no_ticks(monkeypatch: pytest.MonkeyPatch):
    """M6: the next tick is an hour from now, and the clock is set back by as much."""
    monkeypatch.setattr(ticks_module, "CLOCK_SECONDS", SHORT)
    back = timedelta()
    ticked = asyncio.Event()

    async def action() -> None:
        ticked.set()

    ticks = Ticks(wall=lambda: datetime.now(UTC) - back, steady=time.monotonic)
    ticks.every(3600, action)
    ticks.start()
    await asyncio.sleep(0)  # the clocks have been compared once
    back = timedelta(hours=1, minutes=1)
    await asyncio.wait_for(ticked.wait(), 10)
    ticks.stop()
