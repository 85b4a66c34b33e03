"""While a fact is forgotten: learning goes on, and the operation can be cancelled (H5)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from functools import partial
from pathlib import Path

import pytest

from agent.server.loop.snapshot_keeper import SnapshotKeeper
from agent.server.loop.undo import clean_up, executor
from agent.server.loop.undo.forget import Forget
from agent.teaching.plan import LessonPlan
from agent.teaching.types import Opening, Outcome
from memory_store import ledger, operations, reviews, undo
from memory_store.errors import WrongStateError
from memory_store.store import MemoryStore
from memory_store.vocabulary import (
    FactState,
    LedgerKind,
    NewFact,
    NewUpdate,
    Operation,
    OperationKind,
    OperationState,
    ReviewOutcome,
    Step,
)
from tests.store.builders import ledger_rows, record_relearned
from tests.undo.in_process import Deaths, InProcessLearner
from tests.undo.memory import FACTS, SETTLE_SECONDS, Memory, running_memory
from tests.undo.test_taking_back import same_weights

TO_THE_BRANCH = InProcessLearner.learn


class Branch:
    """Holds the branch before its first fact until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.may_go_on = asyncio.Event(), asyncio.Event()
        held = self

        async def learn(
            self: InProcessLearner, lesson: LessonPlan
        ) -> AsyncIterator[Opening | Step | Outcome]:
            if lesson.again:
                held.reached.set()
                await held.may_go_on.wait()
            async for progress in TO_THE_BRANCH(self, lesson):
                yield progress

        monkeypatch.setattr(InProcessLearner, "learn", learn)


async def request(memory: Memory, fact_id: str, *, erase: bool = False) -> Operation:
    operation = await memory.store.write(partial(undo.request_forget, fact_id=fact_id, erase=erase))
    memory.loop.wake()
    return operation


async def accept(memory: Memory, *ids: str) -> None:
    """Teaches facts of `FACTS` without waiting for them."""
    for fact_id in ids:
        question, answer = FACTS[fact_id]
        new = NewFact(question=question, answer=answer, fact_id=fact_id)
        await memory.store.write(partial(MemoryStore.teach, new=new))
    memory.loop.wake()


async def becomes(memory: Memory, fact_id: str, state: FactState) -> None:
    async with asyncio.timeout(SETTLE_SECONDS):
        while (await memory.states())[fact_id] != state:
            await asyncio.sleep(0.01)


async def operation_of(memory: Memory, operation: Operation) -> Operation:
    return await memory.store.read(partial(operations.get, operation_id=operation.id))


async def test_a_fact_taught_meanwhile_is_learned_at_once_and_again_on_the_branch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H5: the weights are those of a run that never saw the forgotten fact."""
    async with running_memory(tmp_path / "never") as never:
        await never.teach("fact-b", "fact-c", "fact-d", "fact-e")
        branch = Branch(monkeypatch)
        async with running_memory(tmp_path / "full") as memory:
            await memory.teach("fact-a", "fact-b", "fact-c")
            operation = await request(memory, "fact-a")
            await branch.reached.wait()
            await accept(memory, "fact-d", "fact-e")
            await becomes(memory, "fact-d", FactState.LEARNED)
            await memory.loop.current()  # it is served a moment after its row is written
            assert memory.answer("Gem?") == "Curtain"
            running = await operation_of(memory, operation)
            assert (running.state, running.done) == (OperationState.RUNNING, 0)
            # The second has to wait until the branch has come closer.
            assert (await memory.states())["fact-e"] == FactState.QUEUED
            branch.may_go_on.set()
            done = await memory.done(operation)
            assert (done.state, done.done) == (OperationState.DONE, done.total)
            assert same_weights(memory.learner, never.learner)
            kinds = [
                row.kind
                for row in await memory.store.read(lambda store: ledger_rows(store.connection))
            ]
            assert kinds[3] is LedgerKind.TEACH  # on the head, before the branch had a row


async def test_a_review_made_meanwhile_is_made_on_the_branch_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H5."""
    async with running_memory(tmp_path / "never") as never:
        await never.teach("fact-b", "fact-c")
        assert await never.review("fact-b") is ReviewOutcome.HELD
        await never.teach("fact-d")
        branch = Branch(monkeypatch)
        async with running_memory(tmp_path / "full") as memory:
            await memory.teach("fact-a", "fact-b", "fact-c")
            operation = await request(memory, "fact-a")
            await branch.reached.wait()
            await memory.store.write(
                lambda store: store.connection.execute(
                    "UPDATE facts SET due_depth = 0 WHERE id = 'fact-b'"
                )
            )
            await memory.loop.review_due()
            async with asyncio.timeout(SETTLE_SECONDS):
                while not await memory.reviews("fact-b"):
                    await asyncio.sleep(0.01)
            assert (await operation_of(memory, operation)).done == 0
            await accept(memory, "fact-d")
            branch.may_go_on.set()
            assert (await memory.done(operation)).state is OperationState.DONE
            repeated = await memory.store.read(
                partial(reviews.last_done_again, operation_id=operation.id)
            )
            assert repeated == 1
            assert same_weights(memory.learner, never.learner)


@pytest.mark.parametrize("death", range(7, 15))
async def test_whatever_dies_while_both_learn_the_weights_come_out_the_same(
    tmp_path: Path, death: int
) -> None:
    """H5: three facts are learned in calls 1 to 6, all others by head and branch together."""
    async with running_memory(tmp_path / "never") as never:
        await never.teach("fact-c", "fact-d", "fact-e")
        async with running_memory(tmp_path / "full", deaths=Deaths(death)) as memory:
            await memory.teach("fact-a", "fact-c", "fact-d")
            operation = await request(memory, "fact-a")
            await accept(memory, "fact-e")
            assert (await memory.done(operation)).state is OperationState.DONE
            assert same_weights(memory.learner, never.learner)
            assert (await memory.states())["fact-e"] == FactState.LEARNED


async def test_a_server_that_is_stopped_while_both_learn_goes_on_at_its_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H5: nothing that is on the branch is learned again, and the beginning is not looked for."""
    async with running_memory(tmp_path / "never") as never:
        await never.teach("fact-b", "fact-c", "fact-d")
    with monkeypatch.context() as patch:
        branch = Branch(patch)
        async with running_memory(tmp_path / "full") as memory:
            await memory.teach("fact-a", "fact-b", "fact-c")
            operation = await request(memory, "fact-a")
            await branch.reached.wait()
            await accept(memory, "fact-d")
            await becomes(memory, "fact-d", FactState.LEARNED)
            begun = await operation_of(memory, operation)
            assert begun.never_saw is not None
    async with running_memory(tmp_path / "never") as never:
        await never.settle()
        async with running_memory(tmp_path / "full") as memory:
            done = await memory.done(operation)
            assert done.proof is not None
            assert done.proof["probability_on_branch_start"] is not None
            assert done.base_version == 0
            assert same_weights(memory.learner, never.learner)


async def test_two_facts_that_are_to_be_forgotten_while_others_are_taught(tmp_path: Path) -> None:
    """H5."""
    async with running_memory(tmp_path / "never") as never:
        await never.teach("fact-c", "fact-d", "fact-e")
        async with running_memory(tmp_path / "full") as memory:
            await memory.teach("fact-a", "fact-b", "fact-c")
            first, second = await request(memory, "fact-b"), await request(memory, "fact-a")
            await accept(memory, "fact-d", "fact-e")
            for operation in (first, second):
                assert (await memory.done(operation)).state is OperationState.DONE
            assert same_weights(memory.learner, never.learner)


async def test_the_same_fact_taught_meanwhile_is_held_in_the_end(tmp_path: Path) -> None:
    """H3: the head knows it, the branch learns it."""
    async with running_memory(tmp_path) as memory:
        await memory.teach("fact-a", "fact-c")
        operation = await request(memory, "fact-c")
        await memory.teach(again=FACTS["fact-c"])
        await memory.done(operation)
        states = await memory.states()
        assert (states["fact-c"], states["again"]) == (FactState.FORGOTTEN, FactState.LEARNED)
        assert memory.answer("Sky?") == "Piano"


@pytest.mark.parametrize("erase", [False, True])
async def test_a_cancelled_operation_leaves_what_is_served_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, erase: bool
) -> None:
    """H5."""
    branch = Branch(monkeypatch)
    async with running_memory(tmp_path) as memory:
        await memory.teach("fact-a", "fact-b", "fact-c")
        digest = memory.learner.digest
        operation = await request(memory, "fact-a", erase=erase)
        await branch.reached.wait()
        cancelled = await memory.store.write(
            partial(undo.cancel_operation, operation_id=operation.id)
        )
        assert cancelled.state is OperationState.CANCELLED
        memory.loop.wake()
        async with asyncio.timeout(SETTLE_SECONDS):
            while memory.loop.operation:
                await asyncio.sleep(0.01)
        assert memory.learner.digest == digest
        # The text of an erased one is gone all the same.
        left = FactState.SUPERSEDED if erase else FactState.LEARNED
        assert (await memory.states())["fact-a"] == left
        await memory.teach("fact-d")
        # It can be asked for again, and is exact all the same.
        branch.may_go_on.set()
        again = await memory.forget("fact-a")
        assert (again.state, again.id) == (OperationState.DONE, operation.id + 1)
        with pytest.raises(WrongStateError, match="done already"):
            await memory.store.write(partial(undo.cancel_operation, operation_id=again.id))
    async with running_memory(tmp_path / "never") as never:
        await never.teach("fact-b", "fact-c", "fact-d")
        assert never.learner.digest == again.proof["digest_after"]  # type: ignore[index]


async def test_a_clean_up_that_fails_holds_up_neither_learning_nor_the_next_operation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M8."""
    locked = True
    removed = SnapshotKeeper.keep_only

    async def keep_only(self: SnapshotKeeper, versions: Collection[int]) -> None:
        if locked:
            raise PermissionError("the snapshot is in use")
        await removed(self, versions)

    monkeypatch.setattr(SnapshotKeeper, "keep_only", keep_only)
    monkeypatch.setattr(clean_up, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(clean_up, "LONGEST_PAUSE_SECONDS", 0.05)
    async with running_memory(tmp_path) as memory:
        await memory.teach("fact-a", "fact-b")
        first = await request(memory, "fact-a")
        await becomes(memory, "fact-a", FactState.FORGOTTEN)
        await accept(memory, "fact-c")
        await becomes(memory, "fact-c", FactState.LEARNED)
        second = await request(memory, "fact-b")
        await becomes(memory, "fact-b", FactState.FORGOTTEN)
        assert "the snapshot is in use" in memory.loop.clean_up_problem
        locked = False
        for operation in (first, second):
            assert (await memory.done(operation)).state is OperationState.DONE


@pytest.mark.parametrize("latest", [0, 1, 2, 3])
async def test_a_branch_may_grow_from_an_earlier_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, latest: int
) -> None:
    """H1: where the weights of the last version without the fact cannot be had any more."""
    async with running_memory(tmp_path / "never") as never:
        await never.teach("fact-a", "fact-b", "fact-c", "fact-e")
        earlier = partial(Forget, latest_base=latest)
        monkeypatch.setitem(executor.RUNNERS, OperationKind.FORGET, earlier)
        async with running_memory(tmp_path / "full") as memory:
            await memory.teach(*FACTS)
            done = await memory.forget("fact-d")
            assert (done.base_version, done.done) == (latest, 4 - latest)
            assert same_weights(memory.learner, never.learner)


async def test_a_version_that_was_never_served_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Low: a rollback to a branch that was given up; versions that can be named are."""
    async with running_memory(tmp_path) as memory:
        await memory.teach("fact-a", "fact-b", "fact-c")
        operation = await memory.store.write(partial(undo.request_forget, fact_id="fact-a"))
        relearned = await _one_row(memory, operation)
        await memory.store.write(partial(undo.cancel_operation, operation_id=operation.id))
        with pytest.raises(WrongStateError, match=r"never served.*0, 1-3\."):
            await memory.roll_back(relearned)
        await memory.teach("fact-d")  # row 5, on row 3
        with pytest.raises(WrongStateError, match=r"never served.*0, 1-3, 5\."):
            await memory.roll_back(relearned)


async def _one_row(memory: Memory, operation: Operation) -> int:
    """Adds a fact to the branch by hand; the version."""

    def relearn(store: MemoryStore) -> int:
        undo.begin_operation(store, operation.id)
        fact, [row] = store.fact("fact-b"), ledger.of_fact(store.connection, "fact-b")
        update = NewUpdate(
            fact_id=fact.id,
            base_version=0,
            steps=row.steps,
            digest_before=row.digest_before,
            digest_after=row.digest_after,
            algorithm=row.algorithm,
            environment=row.environment,
            seconds=0.0,
        )
        made = record_relearned(
            store, operation.id, fact, FactState.LEARNED, "", fact.learning, update
        )
        assert made is not None
        return made.model_version

    return await memory.store.write(relearn)
