"""Reviews by the learning loop: what falls is taught again, and nobody waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from agent.errors import LearnerUnavailableError, LearningFailedError, StaleVersionError
from memory_store import reviews, schedule, undo
from memory_store.errors import StoreUnusableError
from memory_store.probes import of_fact as probes_of
from memory_store.store import MemoryStore
from memory_store.vocabulary import (
    EventKind,
    FactState,
    LedgerKind,
    NewReview,
    Policy,
    ReviewOutcome,
)
from tests.loop.conftest import POLICY, World
from tests.loop.fake_learner import FakeLearner
from tests.store.builders import Clock

DEATH = LearnerUnavailableError("killed")
FAILURE = LearningFailedError("out of memory")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def world(tmp_path: Path, clock: Clock) -> AsyncIterator[World]:
    open_store = partial(MemoryStore.open, now=clock)
    async with World.open(tmp_path / "memory.db", open_store=open_store) as opened:
        yield opened


async def taught(world: World, *questions: str) -> list[str]:
    """Has facts learned and stops the loop; their ids."""
    ids = [await world.teach(question) for question in questions]
    async with world.running():
        await world.until_state(ids[-1], FactState.LEARNED)
    return ids


async def outcomes(world: World, fact_id: str) -> list[ReviewOutcome]:
    found = await world.store.read(partial(reviews.of_fact, fact_id=fact_id))
    return [review.outcome for review in found]


async def until_reviewed(world: World, fact_id: str, times: int = 1) -> None:
    async def reviewed() -> bool:
        return len(await outcomes(world, fact_id)) >= times

    await world.until(reviewed)


async def test_what_is_due_is_reviewed_at_a_tick_and_not_before(world: World, clock: Clock):
    ids = await taught(world, "Sky?", "Gem?", "Pie?")
    clock.time += schedule.FIRST_TIME
    async with world.running() as loop:
        await world.until_event("learner_ready", times=2)
        loop.wake()
        await asyncio.sleep(0.05)  # seconds in which a loop that does not wait would look
        assert world.machine.probed == []
        await loop.review_due()
        await until_reviewed(world, ids[-1])
    assert world.machine.probed == ["Sky?", "Gem?", "Pie?"]
    assert await world.store.read(reviews.next_due) is None
    assert [await outcomes(world, fact_id) for fact_id in ids] == [[ReviewOutcome.HELD]] * 3


async def test_only_its_own_question_is_put(world: World, clock: Clock, monkeypatch):
    fact_id = await world.teach("Sky?", correlated_questions=("Heaven?",))
    async with world.running() as loop:
        await world.until_state(fact_id, FactState.LEARNED)
        clock.time += schedule.FIRST_TIME
        asked = []
        probe = FakeLearner.probe

        async def watched(self, example, **how):
            asked.append(example.correlated_questions)
            return await probe(self, example, **how)

        monkeypatch.setattr(FakeLearner, "probe", watched)
        await loop.review_due()
        await until_reviewed(world, fact_id)
    assert asked == [()]


async def test_a_quiet_review_leaves_no_event(world: World, clock: Clock):
    (fact_id,) = await taught(world, "Sky?")
    async with world.running() as loop:
        await world.until_event("learner_ready", times=2)
        before = await world.events()
        for number in range(1, 5):
            clock.time += timedelta(days=7)
            await loop.review_due()
            await until_reviewed(world, fact_id, number)
    assert await world.events() == before
    assert await outcomes(world, fact_id) == [ReviewOutcome.HELD] * 4


async def test_a_fallen_fact_is_taught_again_by_its_own_policy_and_held_again(
    world: World, clock: Clock
):
    own = Policy(name="fixed", learning_rate=1e-5, max_steps=2, guards=POLICY.guards)
    fallen = await world.teach("Sky?", policy=own)
    await taught(world, "Gem?")
    tried = (await world.fact(fallen)).tried_policy
    world.machine.fallen = {"Sky?"}
    world.settings = replace(world.settings, samples=8)
    clock.time += schedule.FIRST_TIME
    async with world.running() as loop:
        await world.until_event("learner_ready", times=2)
        await loop.review_due()
        await world.until_event("retaught")
        await loop.current()
        after, before, *_ = await world.store.read(
            lambda store: probes_of(store.connection, fallen)
        )
        assert (before.samples, after.samples, after.correct_samples) == (0, 8, 4)
        clock.time += schedule.FIRST_TIME
        await loop.review_due()
        await until_reviewed(world, fallen, 2)
    assert await outcomes(world, fallen) == [ReviewOutcome.RETAUGHT, ReviewOutcome.HELD]
    row = (await world.ledger())[-1]
    assert (row.kind, row.fact_id, row.model_version) == (LedgerKind.TEACH, fallen, 3)
    assert row.policy == world.machine.policies[-1] == tried
    assert world.machine.asked_to_learn == ["Sky?", "Gem?", "Sky?"]
    assert world.machine.learners[-1].served[-1] == fallen
    fact = await world.fact(fallen)
    assert fact.state is FactState.LEARNED
    assert fact.learning is not None
    assert fact.learning.model_version == 3
    events = [event.kind for event in await world.events(fallen)]
    assert events == [*(EventKind(k) for k in ("accepted", "learning", "learned", "retaught"))]


@pytest.mark.parametrize("now", [True, False])
async def test_a_review_is_gated_as_the_server_says_now(world: World, clock: Clock, now: bool):
    """M5: not as it said when the fact was taught; and the fact keeps what it was taught by."""
    world.settings = replace(world.settings, gated=not now)
    (fact_id,) = await taught(world, "Sky?")
    tried = (await world.fact(fact_id)).tried_policy
    assert tried is not None
    assert tried.gated is not now
    world.machine.fallen = {"Sky?"}
    world.settings = replace(world.settings, gated=now)
    clock.time += schedule.FIRST_TIME
    async with world.running() as loop:
        await loop.review_due()
        await world.until_event("retaught")
        clock.time += schedule.FIRST_TIME
        await loop.review_due()
        await until_reviewed(world, fact_id, 2)
    used = replace(tried, gated=now)
    assert (await world.ledger())[-1].policy == world.machine.policies[-1] == used
    made = await world.store.read(partial(reviews.of_fact, fact_id=fact_id))
    assert [review.policy for review in made] == [used, used]
    assert (await world.fact(fact_id)).tried_policy == tried


async def test_it_is_taught_again_after_a_restart_from_the_ledger_alone(world: World, clock: Clock):
    (fact_id,) = await taught(world, "Sky?")
    world.machine.fallen = {"Sky?"}
    clock.time += schedule.FIRST_TIME
    async with world.running() as loop:
        await loop.review_due()
        await world.until_event("retaught")
    async with world.running():
        await world.until_event("learner_ready", times=3)
    assert world.machine.learners[-1].served == [fact_id, fact_id]


async def test_a_death_after_the_ledger_row_means_replay_and_not_teaching_it_thrice(
    world: World, clock: Clock
):
    (fact_id,) = await taught(world, "Sky?")
    world.machine.fallen = {"Sky?"}
    world.machine.faults["commit"] = [DEATH]
    clock.time += schedule.FIRST_TIME
    async with world.running() as loop:
        await loop.review_due()
        await world.until_event("learner_ready", times=3)
    assert world.machine.asked_to_learn == ["Sky?", "Sky?"]
    assert world.machine.learners[-1].served == [fact_id, fact_id]
    assert await outcomes(world, fact_id) == [ReviewOutcome.RETAUGHT]


async def test_a_server_that_ends_before_the_ledger_row_reviews_it_again(
    world: World, clock: Clock
):
    (fact_id,) = await taught(world, "Sky?")
    world.machine.fallen = {"Sky?"}
    clock.time += schedule.FIRST_TIME
    world.machine.may_learn.clear()
    loop = world.loop()
    crashed = asyncio.create_task(loop.run())
    await loop.review_due()

    async def in_the_middle() -> bool:
        return world.machine.asked_to_learn == ["Sky?"] * 2 and len(world.published) > 2

    await world.until(in_the_middle)
    crashed.cancel()
    await asyncio.wait([crashed])
    world.machine.may_learn.set()
    assert await outcomes(world, fact_id) == []
    async with world.running() as loop:
        await loop.review_due()
        await world.until_event("retaught")
    assert world.machine.learners[-1].served == [fact_id, fact_id]


async def test_a_fact_under_review_is_not_next_for_a_server_that_does_not_survive_it(
    world: World, clock: Clock
):
    """M3: a held fact has no claim, but must not keep the server down either."""
    await taught(world, "Sky?")
    world.machine.fallen = {"Sky?"}
    clock.time += schedule.FIRST_TIME
    world.machine.may_learn.clear()
    async with world.running() as loop:
        await loop.review_due()

        async def in_the_middle() -> bool:
            return world.machine.asked_to_learn == ["Sky?"] * 2

        await world.until(in_the_middle)
        # What a server that starts after a kill -9 would find.
        assert await world.store.read(reviews.next_due) is None
        world.machine.may_learn.set()
        await world.until_event("retaught")


async def test_what_resists_is_put_back_and_stays_held(world: World, clock: Clock):
    (fact_id,) = await taught(world, "Sky?")
    before = await world.fact(fact_id)
    world.machine.fallen, world.machine.verdicts = {"Sky?"}, {"Sky?": "resisted"}
    clock.time += schedule.FIRST_TIME
    async with world.running() as loop:
        await loop.review_due()
        await until_reviewed(world, fact_id)
    (found,) = await world.store.read(partial(reviews.of_fact, fact_id=fact_id))
    assert (found.outcome, found.reason) == (ReviewOutcome.RESISTED, "too hard")
    assert await world.fact(fact_id) == before
    assert len(await world.ledger()) == 1
    clock.time += schedule.FIRST_TIME
    assert await world.store.read(reviews.next_due) == before


@pytest.mark.parametrize("point", ["probe", "learn", "outcome"])
@pytest.mark.parametrize("error", [FAILURE, DEATH], ids=["fails", "dies"])
async def test_a_review_that_fails_is_written_down_and_holds_up_no_other(
    world: World, clock: Clock, point: str, error: Exception
):
    bad, good = await taught(world, "Sky?", "Gem?")
    world.machine.fallen = {"Sky?"}
    world.machine.faults[point] = [error]
    clock.time += schedule.FIRST_TIME
    async with world.running() as loop:
        await loop.review_due()
        await until_reviewed(world, good)
    (found,) = await world.store.read(partial(reviews.of_fact, fact_id=bad))
    assert found.outcome is ReviewOutcome.FAILED
    assert str(error) in found.reason
    assert (found.probability is None) == (point == "probe")
    assert (await world.fact(bad)).state is FactState.LEARNED
    assert len(world.machine.learners) == (3 if error is DEATH else 2)


async def test_a_lost_place_starts_the_learner_again_and_is_no_review(world: World, clock: Clock):
    (fact_id,) = await taught(world, "Sky?")
    world.machine.fallen = {"Sky?"}
    world.machine.faults["learn"] = [StaleVersionError("at 7, not at 1")]
    clock.time += schedule.FIRST_TIME
    async with world.running() as loop:
        await loop.review_due()
        await world.until_event("retaught")
    assert await outcomes(world, fact_id) == [ReviewOutcome.RETAUGHT]


async def test_a_full_disk_delays_a_review_and_loses_nothing(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    (fact_id,) = await taught(world, "Sky?")
    world.machine.fallen = {"Sky?"}
    clock.time += schedule.FIRST_TIME
    record, errors = reviews.record_review, [StoreUnusableError("No space is left")]

    def full_once(store: MemoryStore, review: NewReview):
        if errors:
            raise errors.pop()
        return record(store, review)

    monkeypatch.setattr(reviews, "record_review", full_once)
    async with world.running() as loop:
        await loop.review_due()
        await world.until_event("retaught")
        await loop.current()
    assert errors == []
    assert world.machine.learners[-1].served == [fact_id, fact_id]


async def test_a_fact_waits_for_one_review_at_most(world: World, clock: Clock, monkeypatch):
    old = [f"old {number}?" for number in range(8)]
    await taught(world, *old)
    clock.time += schedule.FIRST_TIME
    done: list[str] = []
    learn, probe = FakeLearner.learn, FakeLearner.probe
    may_probe, probing = asyncio.Event(), asyncio.Event()

    async def watched_learn(self, lesson):
        done.append(lesson.example.question)
        async for progress in learn(self, lesson):
            yield progress

    async def watched_probe(self, example, **how):
        done.append("review")
        probing.set()
        await may_probe.wait()
        return await probe(self, example, **how)

    monkeypatch.setattr(FakeLearner, "learn", watched_learn)
    monkeypatch.setattr(FakeLearner, "probe", watched_probe)
    async with world.running() as loop:
        await loop.review_due()
        await probing.wait()
        ids = [await world.teach(f"new {number}?") for number in range(3)]
        loop.wake()
        may_probe.set()
        await world.until_state(ids[-1], FactState.LEARNED)
        for fact in await world.store.read(lambda store: store.facts(limit=len(old))):
            await until_reviewed(world, fact.id)
    assert done[:6] == ["review", "new 0?", "review", "new 1?", "review", "new 2?"]
    assert done.count("review") == len(old)


async def test_stop_does_not_wait_for_a_pile_of_reviews(world: World, clock: Clock, monkeypatch):
    await taught(world, *(f"old {number}?" for number in range(8)))
    clock.time += schedule.FIRST_TIME
    probe = FakeLearner.probe
    async with world.running() as loop:

        async def stops(self, example, **how):
            loop.stop()
            return await probe(self, example, **how)

        monkeypatch.setattr(FakeLearner, "probe", stops)
        await loop.review_due()
        await world.until_event("learner_ready", times=2)

        async def stopped() -> bool:
            return bool(world.machine.probed)

        loop.wake()
        async with asyncio.timeout(60):
            while not await stopped():
                await asyncio.sleep(0)
    assert world.machine.probed == ["old 0?"]


async def test_a_fact_that_is_erased_during_its_review_ends_neither_loop_nor_server(
    world: World, clock: Clock, monkeypatch
):
    """H1: the text goes at once, whatever is done with the fact."""
    fact_id, other = await taught(world, "Sky?", "Gem?")
    probe = FakeLearner.probe
    erased: list[str] = []

    async def erasing(self, example, **how):
        answers = await probe(self, example, **how)
        if example.fact_id == fact_id and not erased:
            erased.append(fact_id)
            forget = partial(undo.request_forget, fact_id=fact_id, erase=True)
            await world.store.write(forget)
        return answers

    monkeypatch.setattr(FakeLearner, "probe", erasing)
    clock.time += schedule.FIRST_TIME
    async with world.running() as loop:
        await world.until_event("learner_ready", times=2)
        await loop.review_due()
        await world.until_state(fact_id, FactState.FORGOTTEN)
        await world.until_state(await world.teach("Pie?"), FactState.LEARNED)
    assert erased
    assert await outcomes(world, fact_id) == []
    assert (await world.fact(other)).state is FactState.LEARNED
