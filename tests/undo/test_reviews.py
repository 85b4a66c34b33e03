"""Forgetting stays exact when facts were reviewed, and taught again, in between."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from agent.errors import LearnerUnavailableError, LearningFailedError
from agent.teaching import guard_presets
from memory_store import reviews, undo
from memory_store.vocabulary import FactState, LedgerKind, OperationState, ReviewOutcome
from tests.store.builders import ledger_rows
from tests.undo.in_process import POLICY, Deaths
from tests.undo.memory import SETTLE_SECONDS, Memory, running_memory
from tests.undo.test_taking_back import everything_known, same_weights

HELD, RETAUGHT = ReviewOutcome.HELD, ReviewOutcome.RETAUGHT
# What is taught without guards makes the tiny model lose everything else.
CAREFUL = replace(POLICY, guards=guard_presets.REHEARSAL)
CARELESS = replace(POLICY, guards=guard_presets.NONE)
POLICIES = {"careful": CAREFUL, "careless": CARELESS}

# What a memory is given, in order: how, and which fact.
HISTORY = (
    ("careful", "fact-a"),
    ("careful", "fact-b"),
    ("review", "fact-b"),
    ("careless", "fact-c"),
    ("review", "fact-a"),
    ("review", "fact-c"),
    ("careful", "fact-d"),
    ("careless", "fact-e"),
    ("review", "fact-d"),
    ("review", "fact-b"),
)
SHORT = (
    ("careful", "fact-a"),
    ("careful", "fact-b"),
    ("careless", "fact-c"),
    ("review", "fact-a"),
    ("careless", "fact-e"),
    ("review", "fact-c"),
)


async def live(memory: Memory, history: Sequence[tuple[str, str]], *without: str) -> None:
    """Gives a memory its teachings and reviews, but for some facts."""
    for what, fact_id in history:
        if fact_id in without:
            continue
        if what == "review":
            await memory.review(fact_id)
        else:
            await memory.teach_by(POLICIES[what], fact_id)


async def test_a_fallen_fact_is_taught_again_and_held_again(tmp_path: Path) -> None:
    async with running_memory(tmp_path) as memory:
        await live(memory, [("careful", "fact-a"), ("careless", "fact-c")])
        question = "What is the hottest month in Kyzara?"
        assert memory.answer(question) != "Raincoat"
        assert await memory.review("fact-a") is RETAUGHT
        assert memory.answer(question) == "Raincoat"
        assert await memory.review("fact-a") is HELD
        rows = await memory.store.read(lambda store: ledger_rows(store.connection))
        assert [(row.kind, row.fact_id) for row in rows][-1] == (LedgerKind.TEACH, "fact-a")
        assert rows[-1].policy == CAREFUL
        # It was rehearsed with what had been learned since.
        assert {id_ for step in rows[-1].steps for id_ in step.rehearsed_fact_ids} == {"fact-c"}
        digest = memory.learner.digest
    async with running_memory(tmp_path) as memory:
        await memory.settle()
        assert memory.learner.digest == digest


@pytest.mark.parametrize("forgotten", ["fact-a", "fact-b", "fact-c", "fact-e"])
async def test_the_weights_equal_a_run_with_the_same_teachings_and_reviews_without_the_fact(
    tmp_path: Path, forgotten: str
) -> None:
    async with running_memory(tmp_path / "never") as never:
        await live(never, HISTORY, forgotten)
        async with running_memory(tmp_path / "full", every_updates=2) as memory:
            await live(memory, HISTORY)
            assert RETAUGHT in await memory.reviews("fact-a")
            assert RETAUGHT in await memory.reviews("fact-d")
            operation = await memory.forget(forgotten)
            assert operation.state is OperationState.DONE
            assert same_weights(memory.learner, never.learner)
            assert memory.learner.digest == never.learner.digest
            # And from here on too, whatever is due next.
            for reviewed in ("fact-d", "fact-b"):
                if reviewed != forgotten:
                    assert await memory.review(reviewed) == await never.review(reviewed)
            assert same_weights(memory.learner, never.learner)


async def test_what_fell_by_the_forgotten_fact_alone_is_not_taught_again(tmp_path: Path) -> None:
    history = [("careful", "fact-a"), ("careless", "fact-c"), ("review", "fact-a")]
    async with running_memory(tmp_path / "never") as never:
        await live(never, history, "fact-c")
        async with running_memory(tmp_path / "full") as memory:
            await live(memory, history)
            assert await memory.reviews("fact-a") == [RETAUGHT]
            await memory.forget("fact-c")
            assert await never.reviews("fact-a") == [HELD]
            assert same_weights(memory.learner, never.learner)
            fact = await memory.store.read(lambda store: store.fact("fact-a"))
            assert fact.learning is not None
            assert fact.learning.model_version == 1


async def test_forgetting_two_facts_one_after_the_other(tmp_path: Path) -> None:
    async with running_memory(tmp_path / "never") as never:
        await live(never, HISTORY, "fact-b", "fact-e")
        async with running_memory(tmp_path / "full") as memory:
            await live(memory, HISTORY)
            await memory.forget("fact-e")
            await memory.forget("fact-b")
            assert same_weights(memory.learner, never.learner)


async def test_a_known_fact_that_was_only_rehearsed_by_reviews_leaves_no_trace(
    tmp_path: Path,
) -> None:
    before = [("careful", "fact-a"), ("careless", "fact-c")]
    after = [("review", "fact-a"), ("careful", "fact-d")]
    async with running_memory(tmp_path / "never") as never:
        await live(never, [*before, *after])
        async with running_memory(tmp_path / "full") as memory:
            await live(memory, before)
            with everything_known():
                await live(memory, [("careful", "fact-b")])
            await live(memory, after)
            assert (await memory.states())["fact-b"] == FactState.KNOWN
            assert not same_weights(memory.learner, never.learner)
            operation = await memory.forget("fact-b")
            assert operation.proof is not None
            assert operation.proof["branch_from"] == 2
            assert same_weights(memory.learner, never.learner)


@pytest.mark.parametrize("death", range(11, 19))
async def test_a_learner_that_dies_meanwhile_repeats_nothing_and_skips_nothing(
    tmp_path: Path, death: int
) -> None:
    async with running_memory(tmp_path / "never") as never:
        await live(never, SHORT, "fact-b")
        # Up to call 10 or 12 the history is made; the branch follows.
        async with running_memory(tmp_path / "full", deaths=Deaths(death)) as memory:
            await live(memory, SHORT)
            operation = await memory.forget("fact-b")
            assert operation.state is OperationState.DONE
            assert same_weights(memory.learner, never.learner)


async def test_a_server_that_stops_among_the_reviews_resumes_at_its_next_start(
    tmp_path: Path,
) -> None:
    async with running_memory(tmp_path / "never") as never:
        await live(never, SHORT, "fact-b")
        async with running_memory(tmp_path / "full") as memory:
            await live(memory, SHORT)
            operation = await memory.store.write(partial(undo.request_forget, fact_id="fact-b"))
            memory.loop.wake()
            async with asyncio.timeout(SETTLE_SECONDS):
                while not await memory.store.read(
                    partial(reviews.last_done_again, operation_id=operation.id)
                ):
                    await asyncio.sleep(0)
        async with running_memory(tmp_path / "full") as memory:
            await memory.settle()
            assert (await memory.states())["fact-b"] == FactState.FORGOTTEN
            assert same_weights(memory.learner, never.learner)


@pytest.mark.parametrize(
    "fault", [LearningFailedError("the loss is nan"), LearnerUnavailableError("killed by it")]
)
async def test_a_review_that_fails_on_the_branch_leaves_the_weights_and_the_others_go_on(
    tmp_path: Path, fault: Exception
) -> None:
    deaths = Deaths()
    async with running_memory(tmp_path / "never") as never:
        await live(never, [step for step in SHORT if step != ("review", "fact-a")], "fact-b")
        async with running_memory(tmp_path / "full", deaths=deaths) as memory:
            await live(memory, SHORT)
            deaths.poison["fact-a"] = fault
            operation = await memory.forget("fact-b")
            assert operation.state is OperationState.DONE
            assert same_weights(memory.learner, never.learner)
            assert (await memory.states())["fact-a"] == FactState.LEARNED


async def test_a_review_of_what_resists_on_the_branch_is_skipped(tmp_path: Path) -> None:
    history = [*SHORT[:3], ("review", "fact-c"), ("careful", "fact-d")]
    deaths = Deaths()
    async with running_memory(tmp_path / "never") as never:
        await live(never, history, "fact-a", "fact-c")
        async with running_memory(tmp_path / "full", deaths=deaths) as memory:
            await live(memory, history)
            deaths.poison["fact-c"] = LearningFailedError("the loss is nan")
            await memory.forget("fact-a")
            assert (await memory.states())["fact-c"] == FactState.QUARANTINED
            assert same_weights(memory.learner, never.learner)
        deaths.poison.clear()
    # Without another fact it is learned again, and its review is part of the history again.
    async with running_memory(tmp_path / "other") as never:
        await live(never, history, "fact-a", "fact-b")
        async with running_memory(tmp_path / "full") as memory:
            await memory.settle()
            await memory.forget("fact-b")
            assert same_weights(memory.learner, never.learner)


async def test_erasing_a_fact_that_was_reviewed_leaves_no_text(tmp_path: Path) -> None:
    async with running_memory(tmp_path, every_updates=1) as memory:
        await live(memory, [*SHORT, ("review", "fact-b")])
        assert await memory.reviews("fact-b") == [RETAUGHT]
        await memory.forget("fact-b", erase=True)
    for file in tmp_path.rglob("*"):
        if file.is_file():
            content = file.read_bytes().lower()
            assert b"telescope" not in content, file
            assert b"blipland" not in content, file


async def test_rolling_back_undoes_teaching_again_and_what_follows_is_exact(
    tmp_path: Path,
) -> None:
    async with running_memory(tmp_path / "never") as never:
        await live(never, [("careful", "fact-a"), ("careless", "fact-c")])
        await live(never, [("review", "fact-c"), ("review", "fact-a"), ("careful", "fact-d")])
        async with running_memory(tmp_path / "full") as memory:
            await live(memory, SHORT[:3])
            digest = memory.learner.digest
            await live(memory, [("review", "fact-c"), ("review", "fact-a")])
            assert memory.learner.digest != digest
            await memory.roll_back(3)
            assert memory.learner.digest == digest
            await live(memory, [("review", "fact-a"), ("careful", "fact-d")])
            await memory.forget("fact-b")
            assert same_weights(memory.learner, never.learner)


async def test_a_branch_repeats_a_review_by_the_policy_that_it_used(tmp_path: Path):
    """M5: facts were taught before the server had a gate, and reviewed afterwards."""

    async def lived(folder: Path, *without: str) -> None:
        async with running_memory(folder) as memory:
            taught = (("careful", "fact-a"), ("careful", "fact-b"), ("careless", "fact-c"))
            await live(memory, taught, *without)

    for folder, without in (("never", ("fact-b",)), ("full", ())):
        await lived(tmp_path / folder, *without)
    async with (
        running_memory(tmp_path / "never", gated=True) as never,
        running_memory(tmp_path / "full", gated=True) as memory,
    ):
        for each in (never, memory):
            # The gate refuses what would have been learned without it.
            assert await each.review("fact-a") is ReviewOutcome.RESISTED
        assert (await memory.forget("fact-b")).state is OperationState.DONE
        assert same_weights(memory.learner, never.learner)
        rows = await memory.store.read(lambda store: ledger_rows(store.connection))
        made = await memory.store.read(partial(reviews.of_fact, fact_id="fact-a"))
    assert [review.policy and review.policy.gated for review in made] == [True]
    again = [row for row in rows if row.kind is LedgerKind.RELEARN]
    assert [(row.fact_id, row.policy and row.policy.gated) for row in again] == [("fact-c", False)]
