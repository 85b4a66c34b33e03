"""The learning loop: every accepted fact is learned exactly once, whatever dies."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import pytest

from agent.config import DEFAULT_MAX_ATTEMPTS as MAX_ATTEMPTS
from agent.errors import (
    DriftError,
    InvalidFactError,
    LearnerUnavailableError,
    LearningFailedError,
    MemoryShortageError,
    ModelError,
    StaleVersionError,
)
from agent.server.loop import backoff as rest
from agent.server.loop import recovery
from agent.teaching import guard_presets
from agent.teaching.types import LearnerDescription
from memory_store import meta
from memory_store.errors import (
    OtherModelError,
    OtherTokenizerError,
    StoreFailedError,
    StoreUnusableError,
)
from memory_store.facts import count_by_state
from memory_store.probes import of_fact as probes_of
from memory_store.store import MemoryStore
from memory_store.vocabulary import (
    EventKind,
    Fact,
    FactState,
    Guards,
    LearnerState,
    Policy,
    ProbeKind,
)
from tests.loop.conftest import POLICY, World
from tests.loop.fake_learner import (
    ALGORITHM,
    BASE_ANSWER,
    CURVE,
    RIGHT,
    WRONG,
    FakeLearner,
    steps,
)

DEATH = LearnerUnavailableError("killed")
FAILURE = LearningFailedError("the loss is nan after 1 steps")


async def kinds(world: World, *fact_ids: str) -> list[str]:
    return [event.kind.value for event in await world.events(*fact_ids)]


# --- The life of a fact ---------------------------------------------------------------------------


async def test_a_queued_fact_is_learned_and_becomes_a_row_of_the_ledger(world: World):
    async with world.running() as loop:
        await world.until_event("learner_ready")
        fact_id = await world.teach("Sky?")
        loop.wake()
        await world.until_state(fact_id, FactState.LEARNED)
    (row,) = await world.ledger()
    assert (row.model_version, row.fact_id, row.steps) == (1, fact_id, steps())
    assert (row.digest_before, row.digest_after) == ("base", f"base+{fact_id}")
    assert (row.algorithm, row.environment) == (ALGORITHM, {"machine": "fake"})
    assert world.machine.learners[0].served == [fact_id]

    learning = (await world.fact(fact_id)).learning
    assert learning is not None
    assert (learning.learning_rates, learning.model_version) == ((1e-3, 1e-3), 1)
    assert (learning.answer_before, learning.answer_after) == (WRONG.text, RIGHT.text)
    assert learning.probability_before == math.exp(WRONG.log_probability)
    assert learning.probability_after == math.exp(RIGHT.log_probability)


async def test_events_tell_the_life_in_order(world: World):
    fact_id = await world.teach("Sky?")
    async with world.running():
        await world.until_state(fact_id, FactState.LEARNED)
    assert await kinds(world) == ["accepted", "learner_ready", "learning", "learned"]
    assert (await world.events(fact_id))[-1].model_version == 1


async def test_steps_are_published_and_not_stored(world: World):
    fact_id = await world.teach("Sky?")
    async with world.running():
        await world.until_state(fact_id, FactState.LEARNED)
    assert [event.step for event in world.published] == list(steps())
    assert [event.step_number for event in world.published] == [1, 2]
    first, second = (event.learning for event in world.published)
    assert first is not None
    assert (first.answer_before, first.answer_after, first.curve) == ("wrong", "", CURVE)
    assert first.probability_before == math.exp(WRONG.log_probability)
    assert second is None
    assert {(e.kind, e.sequence, e.fact_id, e.model_version) for e in world.published} == {
        (EventKind.STEP, 0, fact_id, 0)
    }
    assert "step" not in await kinds(world)


async def test_samples_are_asked_for_and_their_counts_stored(world: World):
    world.settings = replace(world.settings, samples=9)
    fact_id = await world.teach("Sky?")
    async with world.running():
        await world.until_state(fact_id, FactState.LEARNED)
    [probe] = await world.store.read(lambda store: probes_of(store.connection, fact_id))
    assert (probe.samples, probe.correct_samples) == (9, 4)


async def test_probes_of_the_fact_its_correlates_and_older_facts_are_stored(world: World):
    older = await world.teach("Gem?")
    fact_id = await world.teach("Sky?", correlated_questions=("Heaven?", "Above?"))
    async with world.running():
        await world.until_state(fact_id, FactState.LEARNED)
    probes = await world.store.read(lambda store: probes_of(store.connection, fact_id))
    assert {(p.kind, p.question, p.answer, p.cause_fact_id, p.model_version) for p in probes} == {
        (ProbeKind.RETENTION, "Sky?", RIGHT.text, fact_id, 2),
        (ProbeKind.TRANSFER, "Heaven?", WRONG.text, fact_id, 2),
        (ProbeKind.TRANSFER, "Above?", WRONG.text, fact_id, 2),
    }
    newest = (await world.store.read(lambda store: probes_of(store.connection, older)))[0]
    assert (newest.kind, newest.cause_fact_id) == (ProbeKind.FORGETTING, fact_id)
    assert (newest.question, newest.model_version) == ("Gem?", 2)


async def test_facts_are_learned_in_the_order_of_acceptance(world: World):
    questions = [f"{number}?" for number in range(5)]
    fact_ids = [await world.teach(question) for question in questions]
    async with world.running():
        await world.until_state(fact_ids[-1], FactState.LEARNED)
    assert world.machine.asked_to_learn == questions
    assert [row.fact_id for row in await world.ledger()] == fact_ids


async def test_older_facts_go_along_up_to_a_limit(world: World, monkeypatch: pytest.MonkeyPatch):
    assert guard_presets.older_facts(POLICY) > 2
    monkeypatch.setattr(guard_presets, "PROBED", 2)
    fact_ids = [await world.teach(f"{number}?") for number in range(4)]
    async with world.running():
        await world.until_state(fact_ids[-1], FactState.LEARNED)
    rehearsed = [row.steps[0].rehearsed_fact_ids for row in await world.ledger()]
    assert [len(ids) for ids in rehearsed] == [0, 1, 2, 2]
    assert all(set(ids) <= set(fact_ids[:n]) for n, ids in enumerate(rehearsed))


@pytest.mark.parametrize("gated", [True, False])
async def test_whatever_policy_a_fact_brings_the_operator_decides_on_the_gate(
    world: World, gated: bool
):  # M5
    world.settings = replace(world.settings, gated=gated)
    own = Policy(name="fixed", learning_rate=1e-5, max_steps=2)
    brings, none = await world.teach("Sky?", policy=own), await world.teach("Gem?")
    async with world.running():
        await world.until_state(none, FactState.LEARNED)
    for fact_id in (brings, none):
        tried = (await world.fact(fact_id)).tried_policy
        assert tried is not None
        assert tried.gated == gated  # written down, so that a forget learns it again alike
    assert [policy.gated for policy in world.machine.policies] == [gated, gated]


async def test_a_fact_may_bring_its_own_policy(world: World):
    own = Policy(name="fixed", learning_rate=1e-5, max_steps=1)
    await world.teach("Gem?")
    fact_id = await world.teach("Sky?", policy=own)
    async with world.running():
        await world.until_state(fact_id, FactState.LEARNED)
    # Guards are the server's: a fact brings none.
    assert world.machine.policies == [POLICY, replace(own, guards=POLICY.guards)]


@pytest.mark.parametrize("verdict", ["learned", "known", "resisted"])
async def test_the_curve_and_the_base_answer_are_kept_however_it_ended(world: World, verdict: str):
    world.machine.verdicts["Sky?"] = verdict
    fact_id = await world.teach("Sky?")
    async with world.running():
        await world.until_state(fact_id, FactState(verdict))
    learning = (await world.fact(fact_id)).learning
    assert learning is not None
    assert (learning.curve, learning.base_answer) == (CURVE, BASE_ANSWER)


async def test_a_fact_taught_the_papers_way_has_no_guards(world: World):
    assert POLICY.guards is not None  # those of the server
    own = Policy(name="paper", learning_rate=1e-5, max_steps=1)
    fact_id = await world.teach("Sky?", policy=own)
    async with world.running():
        await world.until_state(fact_id, FactState.LEARNED)
    assert world.machine.policies == [replace(own, guards=guard_presets.NONE)]


@pytest.mark.parametrize(
    ("device", "guards"), [("cpu", guard_presets.LIGHT), ("H100", guard_presets.FULL)]
)
async def test_guards_that_nobody_chose_are_what_the_device_can_bear(
    world: World, device: str, guards: Guards
):
    world.settings = replace(world.settings, policy=replace(POLICY, guards=None))
    world.machine.device = device
    fact_id = await world.teach("Sky?")
    async with world.running():
        await world.until_state(fact_id, FactState.LEARNED)
    tried = replace(POLICY, guards=guards)
    assert world.machine.policies == [tried]
    # Written down, so that it is learned again as it was, wherever that is.
    assert (await world.fact(fact_id)).tried_policy == tried


@pytest.mark.parametrize(
    ("verdict", "reason", "probe"), [("known", "", RIGHT), ("resisted", "too hard", WRONG)]
)
async def test_without_an_update_there_is_no_row(world: World, verdict: str, reason: str, probe):
    older = await world.teach("Gem?")
    fact_id = await world.teach("Sky?")
    last = await world.teach("Pie?")
    world.machine.verdicts["Sky?"] = verdict
    async with world.running():
        await world.until_state(last, FactState.LEARNED)
    fact = await world.fact(fact_id)
    assert (fact.state, fact.reason) == (FactState(verdict), reason)
    assert [row.fact_id for row in await world.ledger()] == [older, last]
    assert world.machine.learners[0].served == [older, last]
    probes = await world.store.read(lambda store: probes_of(store.connection, fact_id))
    assert [p.answer for p in probes if p.kind is ProbeKind.RETENTION] == [probe.text]


# --- Learners die ---------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["learn", "outcome"])
async def test_a_death_before_the_ledger_row_means_learning_it_again(world: World, point: str):
    fact_id = await world.teach("Sky?")
    world.machine.faults[point] = [DEATH]
    async with world.running():
        await world.until_state(fact_id, FactState.LEARNED)
    assert world.machine.asked_to_learn == ["Sky?", "Sky?"]
    assert [row.fact_id for row in await world.ledger()] == [fact_id]
    assert world.machine.learners[1].served == [fact_id]
    assert (await world.fact(fact_id)).failed_attempts == 1
    assert await kinds(world) == [
        *("accepted", "learner_ready", "learning", "retried"),
        *("learner_down", "learner_ready", "learning", "learned"),
    ]


async def test_a_death_after_the_ledger_row_means_replay_and_not_learning(world: World):
    first = await world.teach("Sky?")
    second = await world.teach("Gem?")
    world.machine.faults["commit"] = [DEATH]
    async with world.running():
        await world.until_state(second, FactState.LEARNED)
    assert world.machine.asked_to_learn == ["Sky?", "Gem?"]
    assert [row.fact_id for row in await world.ledger()] == [first, second]
    assert [learner.served for learner in world.machine.learners] == [[], [first, second]]
    assert (await world.fact(first)).failed_attempts == 0


async def test_a_server_that_ends_before_the_commit_does_not_learn_again(world: World):
    fact_id = await world.teach("Sky?")
    world.machine.may_commit.clear()
    crashed = asyncio.create_task(world.loop().run())
    await world.until_state(fact_id, FactState.LEARNED)
    crashed.cancel()
    await asyncio.wait([crashed])
    async with world.running():
        await world.until_event("learner_ready", times=2)
    assert world.machine.asked_to_learn == ["Sky?"]
    assert [learner.served for learner in world.machine.learners] == [[], [fact_id]]


async def test_a_death_in_the_middle_of_recovery_starts_it_anew(world: World):
    fact_ids = [await world.teach(f"{number}?") for number in range(3)]
    async with world.running():
        await world.until_state(fact_ids[-1], FactState.LEARNED)
    world.machine.faults["replay"] = [DEATH]
    world.machine.faults["describe"] = [DEATH]
    async with world.running() as loop:
        await world.until_event("learner_ready", times=2)
        assert loop.updates_to_replay == 0
    assert world.machine.learners[-1].served == fact_ids


async def test_a_long_ledger_is_replayed_page_by_page(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(recovery, "REPLAY_PAGE", 2)
    fact_ids = [await world.teach(f"{number}?") for number in range(5)]
    async with world.running():
        await world.until_state(fact_ids[-1], FactState.LEARNED)
    async with world.running():
        await world.until_event("learner_ready", times=2)
    assert world.machine.learners[1].served == fact_ids
    assert "replayed 5 updates" in (await world.events())[-1].message


async def test_a_death_while_idle_is_noticed_and_the_next_learner_replays(world: World):
    first = await world.teach("Sky?")
    async with world.running() as loop:
        await world.until_state(first, FactState.LEARNED)
        world.machine.learners[0].die(-9)
        await world.until_event("learner_ready", times=2)
        second = await world.teach("Gem?")
        loop.wake()
        await world.until_state(second, FactState.LEARNED)
    assert world.machine.learners[1].served == [first, second]
    assert world.machine.asked_to_learn == ["Sky?", "Gem?"]
    events = {event.kind: event.message for event in await world.events()}
    assert "-9" in events[EventKind.LEARNER_DOWN]


async def test_a_learner_that_does_not_come_up_is_started_again(world: World):
    world.machine.faults["start"] = [DEATH] * 3
    fact_id = await world.teach("Sky?")
    async with world.running():
        await world.until_state(fact_id, FactState.LEARNED)
    assert (await kinds(world)).count("learner_down") == 3


async def test_a_dead_learner_cannot_be_asked(world: World):
    async with world.running() as loop:
        await world.until_event("learner_ready")
        loop.state_changed.clear()
        world.machine.learners[0].die()
        await loop.state_changed.wait()
        assert (loop.state, loop.learner) == (LearnerState.DOWN, None)
        await world.until_event("learner_ready", times=2)
        assert (loop.state, loop.learner) == (LearnerState.READY, world.machine.learners[1])
    assert loop.learner is None


# --- Facts that fail ------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [FAILURE, DEATH], ids=["learning fails", "it kills the learner"])
async def test_a_fact_that_fails_each_time_is_quarantined_and_the_next_go_on(
    world: World, error: Exception
):
    bad = await world.teach("Sky?")
    good = await world.teach("Gem?")
    world.machine.faults["learn"] = [error] * MAX_ATTEMPTS
    async with world.running():
        await world.until_state(good, FactState.LEARNED)
    fact = await world.fact(bad)
    assert (fact.state, fact.failed_attempts) == (FactState.QUARANTINED, MAX_ATTEMPTS)
    assert str(error) in fact.reason
    assert world.machine.asked_to_learn == ["Sky?"] * MAX_ATTEMPTS + ["Gem?"]
    assert [row.fact_id for row in await world.ledger()] == [good]
    assert await kinds(world, bad) == [
        "accepted",
        *("learning", "retried") * (MAX_ATTEMPTS - 1),
        *("learning", "quarantined"),
    ]


async def test_a_fact_that_does_not_fit_the_model_is_quarantined_at_once(world: World):
    """It was accepted before its tokens could be counted."""
    bad = await world.teach("Sky?")
    good = await world.teach("Gem?")
    world.machine.faults["learn"] = [InvalidFactError("question", "it has 900 tokens")]
    async with world.running():
        await world.until_state(good, FactState.LEARNED)
    fact = await world.fact(bad)
    assert (fact.state, fact.reason) == (FactState.QUARANTINED, "question: it has 900 tokens")
    assert await kinds(world, bad) == ["accepted", "learning", "quarantined"]
    assert len(world.machine.learners) == 1


async def test_each_learner_is_reported_once_its_model_is_bound(world: World):
    reported = []

    async def on_loaded(description: LearnerDescription) -> None:
        reported.append(
            (await world.store.read(lambda store: meta.bindings(store.connection)))["model_name"]
        )

    loop = world.loop(on_loaded)
    running = asyncio.create_task(loop.run())
    await world.until_event("learner_ready")
    loop.stop()
    await running
    assert reported == ["fake"]


async def test_a_learner_that_does_not_come_up_is_explained(world: World):
    world.machine.faults["describe"] = [LearnerUnavailableError("signal 9")]
    async with world.running() as loop:
        await loop.state_changed.wait()
        while loop.state is not LearnerState.DOWN:
            loop.state_changed.clear()
            await loop.state_changed.wait()
        assert loop.message == "signal 9; starting it again in 0.0 s"
        with pytest.raises(LearnerUnavailableError, match=r"down \(signal 9; starting"):
            await loop.current()
        await world.until_event("learner_ready")
        assert loop.message == ""


async def test_a_failure_leaves_the_learner_alive(world: World):
    fact_id = await world.teach("Sky?")
    world.machine.faults["learn"] = [FAILURE]
    async with world.running():
        await world.until_state(fact_id, FactState.LEARNED)
    assert len(world.machine.learners) == 1
    assert (await world.fact(fact_id)).failed_attempts == 1


async def test_an_update_without_an_outcome_counts_as_a_death(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    async def ends_early(self: FakeLearner, *_: object):
        monkeypatch.undo()
        yield steps()[0]

    fact_id = await world.teach("Sky?")
    monkeypatch.setattr(FakeLearner, "learn", ends_early)
    async with world.running():
        await world.until_state(fact_id, FactState.LEARNED)
    assert len(world.machine.learners) == 2


@pytest.mark.parametrize("point", ["learn", "outcome"])
async def test_a_lost_place_releases_the_fact_without_counting_an_attempt(world: World, point: str):
    fact_id = await world.teach("Sky?")
    world.machine.faults[point] = [StaleVersionError("at 7, not at 0")] * MAX_ATTEMPTS
    async with world.running():
        await world.until_state(fact_id, FactState.LEARNED)
    assert (await world.fact(fact_id)).failed_attempts == 0
    assert len(world.machine.learners) == MAX_ATTEMPTS + 1
    assert "retried" not in await kinds(world)


@pytest.mark.parametrize("error", [StaleVersionError("not the next"), LearningFailedError("OOM")])
@pytest.mark.parametrize("point", ["commit", "replay"])
async def test_a_learner_that_cannot_follow_the_ledger_is_started_again(
    world: World, point: str, error: Exception
):
    first = await world.teach("Sky?")
    second = await world.teach("Gem?")
    world.machine.faults["commit"] = [DEATH] if point == "replay" else []
    world.machine.faults[point] = [error]
    async with world.running():
        await world.until_state(second, FactState.LEARNED)
    assert world.machine.learners[-1].served == [first, second]
    assert world.machine.asked_to_learn == ["Sky?", "Gem?"]


# --- Failures beside questions: H6 ----------------------------------------------------------------

SHORTAGE = MemoryShortageError("no room for 1 MiB")


@pytest.mark.parametrize("error", [SHORTAGE, DEATH], ids=["memory runs out", "the learner dies"])
async def test_what_fails_while_questions_are_answered_is_not_charged_to_the_fact(
    world: World, error: Exception
):
    """H6: it is tried again alone."""
    fact_id = await world.teach("Sky?")
    world.machine.faults["outcome"] = [error]
    world.machine.may_learn.clear()
    async with world.running() as loop:
        async with loop.questions.shared():
            await world.until_state(fact_id, FactState.LEARNING)
            world.machine.may_learn.set()
            await world.until_event("retried")
            # As long as somebody is answered, it waits.
            assert world.machine.asked_to_learn == ["Sky?"]
        await world.until_state(fact_id, FactState.LEARNED)
    assert (await world.fact(fact_id)).failed_attempts == 0
    [retried] = [e for e in await world.events(fact_id) if e.kind is EventKind.RETRIED]
    assert "questions were being answered" in retried.message


async def test_questions_wait_while_a_fact_is_tried_alone(world: World):
    """H6."""
    fact_id = await world.teach("Sky?")
    world.machine.faults["learn"] = [SHORTAGE]
    world.machine.may_learn.clear()
    async with world.running() as loop:
        await world.until_event("learning", times=2)  # nobody asked: the first is charged
        assert (await world.fact(fact_id)).failed_attempts == 1

        async def ask() -> FactState:
            async with loop.questions.shared():
                return (await world.fact(fact_id)).state

        asking = asyncio.create_task(ask())
        world.machine.may_learn.set()
        assert await asking is not FactState.LEARNING


async def test_a_fact_that_fails_alone_is_quarantined_however_much_is_asked(world: World):
    """H6: the first attempt is not counted, those alone are."""
    bad, good = await world.teach("Sky?"), await world.teach("Gem?")
    world.machine.faults["learn"] = [SHORTAGE] * (1 + MAX_ATTEMPTS)
    async with world.running() as loop:

        async def ask() -> None:
            while (await world.fact(good)).state is not FactState.LEARNED:
                async with loop.questions.shared():
                    await asyncio.sleep(0)

        async with loop.questions.shared():
            asking = asyncio.create_task(ask())
            await world.until_event("retried")
        await world.until_state(good, FactState.LEARNED)
        await asking
    assert (await world.fact(bad)).state is FactState.QUARANTINED
    assert world.machine.asked_to_learn == ["Sky?"] * (1 + MAX_ATTEMPTS) + ["Gem?"]


async def test_a_failed_fact_rests_before_it_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """H6."""
    monkeypatch.setattr(rest, "FIRST_REST_SECONDS", 3600)
    await world.teach("Sky?")
    world.machine.faults["learn"] = [FAILURE]
    async with world.running() as loop:
        await world.until_event("retried")
        for _ in range(3):  # looks at the queue
            loop.wake()
            await world.store.read(lambda store: count_by_state(store.connection))
    assert world.machine.asked_to_learn == ["Sky?"]


def test_rests_grow_up_to_a_limit_and_begin_anew_with_the_next_fact(
    monkeypatch: pytest.MonkeyPatch,
):
    """H6."""
    monkeypatch.setattr(rest, "FIRST_REST_SECONDS", 1.0)
    seconds = 0.0
    pause = rest.Rest(now=lambda: seconds)
    found = []
    for _ in range(5):
        pause.after_failure()
        found.append(pause.seconds_left())
        seconds += found[-1]
        assert pause.seconds_left() == 0
    assert found == [1, 4, 16, 60, 60]
    pause.after_failure()
    pause.end()
    assert pause.seconds_left() == 0
    pause.after_failure()
    assert pause.seconds_left() == 1


# --- Starting and stopping ------------------------------------------------------------------------


async def test_a_claim_of_a_crashed_server_counts_as_an_attempt(world: World):
    """M3."""
    fact_id = await world.teach("Sky?")
    await world.store.write(MemoryStore.claim)
    assert (await world.fact(fact_id)).state is FactState.LEARNING
    async with world.running():
        await world.until_state(fact_id, FactState.LEARNED)
    assert (await world.fact(fact_id)).failed_attempts == 1


async def test_a_fact_that_always_takes_the_server_with_it_is_quarantined(world: World):
    """M3."""
    bad, good = await world.teach("Sky?"), await world.teach("Gem?")
    for _ in range(MAX_ATTEMPTS):
        claimed = await world.store.write(MemoryStore.claim)
        assert claimed is not None
        assert claimed.id == bad
        await world.store.write(partial(MemoryStore.release_claims, max_attempts=MAX_ATTEMPTS))
    async with world.running():
        await world.until_state(good, FactState.LEARNED)
    assert (await world.fact(bad)).state is FactState.QUARANTINED


async def test_an_update_that_a_clean_stop_gives_up_counts_no_attempt(world: World):
    """M3: the drain was too short, which is not the fact's fault."""
    fact_id = await world.teach("Sky?")
    world.machine.may_learn.clear()
    stopped = asyncio.create_task(world.loop().run())
    await world.until_state(fact_id, FactState.LEARNING)
    stopped.cancel()
    await asyncio.wait([stopped])
    assert (await world.fact(fact_id)).state is FactState.QUEUED
    world.machine.may_learn.set()
    async with world.running():
        await world.until_state(fact_id, FactState.LEARNED)
    assert (await world.fact(fact_id)).failed_attempts == 0
    assert "retried" not in await kinds(world)


async def test_stop_finishes_the_update_in_hand_and_begins_no_other(world: World):
    first = await world.teach("Sky?")
    second = await world.teach("Gem?")
    world.machine.may_learn.clear()

    async def in_the_middle() -> bool:
        return bool(world.published)

    async with world.running() as loop:
        await world.until(in_the_middle)
        loop.stop()
        world.machine.may_learn.set()
    assert (await world.fact(first)).state is FactState.LEARNED
    assert (await world.fact(second)).state is FactState.QUEUED
    assert [row.fact_id for row in await world.ledger()] == [first]
    assert world.machine.learners[0].served == [first]


async def test_an_idle_loop_looks_at_the_queue_only_when_woken(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    claim, looks = MemoryStore.claim, 0

    def counted(store: MemoryStore) -> Fact | None:
        nonlocal looks
        looks += 1
        return claim(store)

    monkeypatch.setattr(MemoryStore, "claim", counted)

    async def looked() -> bool:
        return looks == expected

    expected = 1
    async with world.running() as loop:
        await world.until(looked)
        await asyncio.sleep(0.1)  # seconds in which a loop that does not wait would look again
        assert looks == expected
        expected = 2
        loop.wake()
        await world.until(looked)
        await asyncio.sleep(0.1)
        assert looks == expected


async def test_stop_keeps_an_update_and_waits_for_no_samples(world: World):
    world.settings = replace(world.settings, samples=9)
    fact_id = await world.teach("Sky?")
    world.machine.may_sample.clear()
    async with world.running() as loop:
        await world.machine.sampling.wait()
        loop.stop()
    assert (await world.fact(fact_id)).state is FactState.LEARNED
    assert world.machine.learners[0].served == [fact_id]
    [probe] = await world.store.read(lambda store: probes_of(store.connection, fact_id))
    assert probe.samples == 0


async def test_the_time_of_samples_is_not_that_of_the_update(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    clock = [0.0]
    monkeypatch.setattr("agent.server.loop.learning_loop.time.monotonic", lambda: clock[0])
    world.settings = replace(world.settings, samples=9)
    fact_id = await world.teach("Sky?")
    world.machine.may_sample.clear()
    async with world.running():
        await world.machine.sampling.wait()
        clock[0] += 1000.0
        world.machine.may_sample.set()
        await world.until_state(fact_id, FactState.LEARNED)
    [row] = await world.ledger()
    assert row.seconds == 0.0


async def test_stop_ends_an_idle_loop(world: World):
    async with world.running():
        await world.until_event("learner_ready")
    assert len(world.machine.learners) == 1


async def test_drift_ends_the_loop(world: World):
    fact_id = await world.teach("Sky?")
    async with world.running():
        await world.until_state(fact_id, FactState.LEARNED)
    world.machine.faults["replay"] = [DriftError("update 1 came out as 00 but was recorded as 11")]
    with pytest.raises(DriftError, match="update 1"):
        await world.loop().run()
    assert len(world.machine.learners) == 2


async def test_a_model_that_cannot_be_loaded_ends_the_loop(world: World):
    world.machine.faults["start"] = [ModelError("no weights")]
    with pytest.raises(ModelError, match="no weights"):
        await world.loop().run()


async def test_the_memory_of_another_model_ends_the_loop_before_anything_is_learned(world: World):
    await world.store.write(
        lambda store: meta.bind_model(store.connection, "fake", "other weights")
    )
    await world.teach("Sky?")
    with pytest.raises(OtherModelError):
        await world.loop().run()
    assert world.machine.asked_to_learn == []


# --- The disk is full -----------------------------------------------------------------------------


def fails_once(monkeypatch: pytest.MonkeyPatch, operation: str, error: Exception) -> None:
    """Makes the next call of an operation of the store raise."""
    works = getattr(MemoryStore, operation)
    errors = [error]

    def fails(store: MemoryStore, *args: object, **rest: object) -> object:
        if errors:
            raise errors.pop()
        return works(store, *args, **rest)

    monkeypatch.setattr(MemoryStore, operation, fails)


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        ("claim", None),
        ("record_event", None),
        ("record", None),
        ("record_failure", FAILURE),
        ("release", StaleVersionError("not the next")),
    ],
)
async def test_a_full_disk_delays_learning_and_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, operation: str, fault: Exception | None
):
    fact_id = await world.teach("Sky?")
    world.machine.faults["learn"] = [fault] if fault else []
    fails_once(monkeypatch, operation, StoreUnusableError("No space is left"))
    async with world.running():
        await world.until_state(fact_id, FactState.LEARNED)
    assert [row.fact_id for row in await world.ledger()] == [fact_id]
    assert world.machine.learners[-1].served == [fact_id]
    assert (await world.fact(fact_id)).failed_attempts == (fault is FAILURE)


async def test_the_learner_is_kept_for_those_who_still_ask(world: World):
    loop = world.loop()
    task = asyncio.create_task(loop.run())
    await world.until_event("learner_ready")
    unasked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    loop.stop(unasked)
    waited, _ = await asyncio.wait([task], timeout=0.05)
    assert not waited
    assert await loop.current() is world.machine.learners[0]
    unasked.set_result(None)
    await asyncio.wait_for(task, 10)
    assert loop.learner is None


async def test_a_full_disk_does_not_hold_up_stop(world: World, monkeypatch: pytest.MonkeyPatch):
    refused = asyncio.Event()
    here = asyncio.get_running_loop()

    def full(store: MemoryStore) -> None:
        here.call_soon_threadsafe(refused.set)
        raise StoreUnusableError("No space is left")

    monkeypatch.setattr(MemoryStore, "claim", full)
    loop = world.loop()
    task = asyncio.create_task(loop.run())
    await refused.wait()
    loop.stop()
    with pytest.raises(StoreUnusableError, match="No space"):
        await asyncio.wait_for(task, 10)


async def test_a_disk_that_failed_ends_the_loop(world: World, monkeypatch: pytest.MonkeyPatch):
    fails_once(monkeypatch, "claim", StoreFailedError("Reading or writing failed"))
    with pytest.raises(StoreFailedError):
        await asyncio.wait_for(world.loop().run(), 10)


# --- Pausing --------------------------------------------------------------------------------------


async def test_while_paused_nothing_is_learned_or_reviewed(world: World):
    await world.store.write(lambda store: meta.pause_learning(store.connection, paused=True))
    async with world.running() as loop:  # the server was started paused
        await world.until_event("learner_ready")
        fact_id = await world.teach("Sky?")
        await loop.review_due()
        await asyncio.sleep(0.05)
        assert (await world.fact(fact_id)).state is FactState.QUEUED
        await world.store.write(lambda store: meta.pause_learning(store.connection, paused=False))
        loop.wake()
        await world.until_state(fact_id, FactState.LEARNED)


async def test_the_memory_of_the_learner_is_looked_at_while_there_is_one(world: World):
    async with world.running() as loop:
        await loop.look_at_memory()
        assert loop.memory == (0, 0)
        await world.until_event("learner_ready")
        await asyncio.sleep(0)
        await loop.look_at_memory()
        assert loop.memory == (1, 2)


# --- What a memory is tied to ---------------------------------------------------------------------


def tokenizer(**changed: object) -> str:
    return json.dumps(
        {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}
        | changed
    )


async def test_a_changed_tokenizer_is_refused_and_its_rules_are_not_used(world: World):  # M2
    world.machine.tokenizer = tokenizer()
    async with world.running():
        await world.until_event("learner_ready")
    world.machine.tokenizer = tokenizer(normalizer={"type": "Lowercase"})
    loop = world.loop()
    with pytest.raises(OtherTokenizerError, match=r"tokenizer\.json"):
        await loop.run()
    assert loop.description is None
    world.settings = replace(world.settings, accept_drift=True)
    async with world.running():
        await world.until_event("learner_ready", times=2)


async def test_the_general_text_is_in_the_row_and_another_one_is_reported(
    world: World, caplog: pytest.LogCaptureFixture
):  # M1
    world.machine.general_text = "first"
    fact_id = await world.teach("Sky?")
    async with world.running():
        await world.until_state(fact_id, FactState.LEARNED)
    (row,) = await world.ledger()
    assert row.environment == {"machine": "fake", "general-text": "first"}
    assert "general-text" not in caplog.text
    world.machine.general_text = "second"
    fact_id = await world.teach("Gem?")
    async with world.running():
        await world.until_state(fact_id, FactState.LEARNED)
    assert "restore the folder general-text" in caplog.text


# --- The end, in good order -----------------------------------------------------------------------


async def test_the_head_has_a_snapshot_before_the_learner_ends(world: World):  # H1
    fact_id = await world.teach("Sky?")
    async with world.running():
        await world.until_state(fact_id, FactState.LEARNED)
    (row,) = await world.ledger()
    assert world.held == [(1, row.digest_after)]


async def test_a_learner_that_is_slow_to_end_is_reported_to_be_down_at_once(world: World):
    """H2: health said for seconds that questions are answered, while all were refused."""
    ending, go_on = asyncio.Event(), asyncio.Event()
    start = world.machine.start

    @asynccontextmanager
    async def slow_to_end() -> AsyncIterator[FakeLearner]:
        async with start() as learner:
            try:
                yield learner
            finally:
                ending.set()
                await go_on.wait()

    world.machine.start = slow_to_end  # type: ignore[method-assign]
    async with world.running() as loop:
        await world.until_event("learner_ready")
        loop.state_changed.clear()
        world.machine.learners[-1].die()
        await asyncio.wait_for(ending.wait(), 10)
        assert (loop.state, loop.learner) == (LearnerState.DOWN, None)
        assert loop.state_changed.is_set()
        go_on.set()
        await world.until_event("learner_ready", times=2)
