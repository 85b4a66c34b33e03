"""H1: a memory that one algorithm taught is opened by the next: it starts, forgets and erases."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.errors import UnreachableError
from agent.learner import core as learner_module
from agent.learner.environment import make_deterministic
from agent.learner.training import fact_training
from agent.snapshots import snapshot_folders
from agent.teaching.algorithm import ALGORITHM
from agent.teaching.guard_presets import NONE
from memory_store import ledger, operations, rollback_states, undo
from memory_store.lines import line_of
from memory_store.store import MemoryStore
from memory_store.vocabulary import FactState, NewFact, OperationState
from tests.store.builders import ledger_rows
from tests.undo.in_process import POLICY, InProcessLearner
from tests.undo.memory import Memory, running_memory

OLDER = "answer-adamw/3"
QUICK = replace(POLICY, guards=NONE)
FACTS = 200
ANSWERS = ("Piano", "Curtain", "Raincoat", "Telescope", "Backpack")
# Positions at which the older release left a snapshot, the head's among them.
SNAPSHOTS = (100, 190, FACTS)
FIRST, MIDDLE, LAST = 0, 101, FACTS - 1


def fact(number: int) -> NewFact:
    # Of its own, so that no fact is known from others before it is taught.
    answer = f"{ANSWERS[number % len(ANSWERS)]} {number}"
    return NewFact(question=f"Word {number}?", answer=answer, fact_id=f"fact-{number}")


async def teach(memory: Memory, first: int, last: int) -> None:
    def teach_all(store: MemoryStore) -> None:
        for number in range(first, last):
            store.teach(fact(number))

    await memory.store.write(teach_all)
    memory.loop.wake()
    await memory.settle()


async def teach_by_the_older(folder: Path, snapshots: tuple[int, ...], until: int) -> str:
    """A memory of the older release; the digest of its head."""
    with the_older_release():
        async with running_memory(folder, policy=QUICK) as memory:
            taught = 0
            for number in sorted({*snapshots, until}):
                await teach(memory, taught, number)
                if number in snapshots:
                    await memory.keeper.create()
                taught = number
            return str(memory.learner.digest)


@pytest.fixture(scope="module", autouse=True)
def patient() -> Iterator[None]:
    """To learn 200 facts again takes a busy machine longer than a test usually waits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.undo.memory.SETTLE_SECONDS", 600.0)
        yield


@pytest.fixture(scope="module")
def older(patient: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """200 facts, taught by the older release, and the digest of their weights."""
    folder = tmp_path_factory.mktemp("older")
    make_deterministic(1)
    return folder, asyncio.run(teach_by_the_older(folder, SNAPSHOTS, FACTS))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "taught"), [(FIRST, 0), (MIDDLE, 100), (LAST, 190)], ids=["first", "middle", "last"]
)
async def test_two_hundred_facts_are_served_forgotten_and_erased(
    older: tuple[Path, str], tmp_path: Path, number: int, taught: int
) -> None:
    folder, digest = tmp_path / "data", older[1]
    shutil.copytree(older[0], folder)
    # The snapshot at which so many facts had been taught; before the first, the base model.
    versions = sorted(version for version, _ in snapshot_folders(folder / "snapshots"))
    nearest = dict(zip((0, *SNAPSHOTS), (0, *versions), strict=True))[taught]
    chosen = fact(number)
    assert chosen.fact_id is not None
    async with running_memory(folder, policy=QUICK) as memory:
        await memory.settle()
        assert memory.learner.digest == digest
        kept = fact(FACTS - 2)
        assert memory.answer(kept.question) == kept.answer

        operation = await memory.forget(chosen.fact_id)
        assert operation.state is OperationState.DONE, operation.message
        assert operation.proof is not None
        assert operation.proof["branch_from"] == nearest
        # Before the first fact there is nothing that would have to be replayed.
        assert (OLDER in operation.proof["branch_from_because"]) is (number != FIRST)
        assert operation.proof["relearned"] + operation.proof["resisted"] == FACTS - 1 - taught
        assert not operation.proof["answers_it"]
        await lineage_is_new(memory, nearest)

        erased = await memory.forget(chosen.fact_id, erase=True)
        assert erased.state is OperationState.DONE
    async with running_memory(folder, policy=QUICK) as memory:
        await memory.settle()
        states = await memory.states()
        assert states.pop(chosen.fact_id) == FactState.FORGOTTEN
        assert set(states.values()) <= {"learned", "known", "resisted"}
        assert (
            await memory.store.read(partial(MemoryStore.fact, fact_id=chosen.fact_id))
        ).answer == ""


async def lineage_is_new(memory: Memory, nearest: int) -> None:
    """Whether what is served is the older release's up to a version, and today's from there."""
    rows = await memory.store.read(
        lambda store: ledger.at_versions(
            store.connection, ledger.lineage(store.connection, store.model_version())
        )
    )
    algorithms = {row.algorithm for row in rows if row.model_version > nearest and row.steps}
    assert algorithms == {ALGORITHM}
    assert max((r.model_version for r in rows if r.algorithm == OLDER), default=0) == nearest


# --- The same, small ------------------------------------------------------------------------------


@contextmanager
def the_older_release() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (learner_module, fact_training):
            patch.setattr(module, "ALGORITHM", OLDER)
        yield


async def test_a_forget_that_the_older_release_had_begun_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_memory(tmp_path / "never") as never:
        await never.teach("fact-b", "fact-c", "fact-d")
        expected = never.learner.digest
    learn = InProcessLearner.learn
    with the_older_release(), monkeypatch.context() as patch:
        async with running_memory(tmp_path / "data") as memory:
            await memory.teach("fact-a", "fact-b", "fact-c", "fact-d")
            await memory.keeper.create()

            async def stopped_at_the_second(self: Any, lesson: Any) -> Any:
                if lesson.again and lesson.example.fact_id == "fact-c":
                    memory.loop.stop()
                async for progress in learn(self, lesson):
                    yield progress

            patch.setattr(InProcessLearner, "learn", stopped_at_the_second)
            operation = await memory.store.write(partial(undo.request_forget, fact_id="fact-a"))
            memory.loop.wake()
            await memory.running
        with MemoryStore.open(tmp_path / "data" / "memory.db") as store:
            begun = operations.get(store, operation.id)
            assert begun.branch_version not in (None, begun.base_version)
            assert [row.algorithm for row in ledger_rows(store.connection)] == [OLDER] * 5
    async with running_memory(tmp_path / "data") as memory:
        await memory.settle()
        done = await memory.done(operation)
        assert (done.state, done.message) == (OperationState.DONE, "")
        assert memory.learner.digest == expected
        await lineage_is_new(memory, 0)


async def test_a_rollback_serves_the_nearest_version_and_learns_the_rest_again(
    tmp_path: Path,
) -> None:
    with the_older_release():
        async with running_memory(tmp_path) as memory:
            await memory.teach("fact-a")
            await memory.keeper.create()
            await memory.teach("fact-b", "fact-c", "fact-d")
            await memory.keeper.create()
            digest = memory.learner.digest
    async with running_memory(tmp_path) as memory:
        await memory.settle()
        assert memory.learner.digest == digest
        operation = await memory.roll_back(3)
        assert operation.state is OperationState.DONE, operation.message
        assert operation.proof is not None
        assert operation.proof["served"] == 1
        assert OLDER in operation.proof["served_because"]
        assert await memory.states() == {
            "fact-a": "learned",
            "fact-b": "learned",
            "fact-c": "learned",
            "fact-d": "forgotten",
        }
        await lineage_is_new(memory, 1)


@pytest.mark.parametrize("written_down", [False, True])
async def test_a_rollback_that_the_older_release_had_begun_undoes_what_a_start_queued_again(
    tmp_path: Path, written_down: bool
) -> None:
    """H1: also where the older release had written down what each fact was to be."""
    with the_older_release():
        async with running_memory(tmp_path) as memory:
            await memory.teach("fact-a")
            await memory.keeper.create()
            await memory.teach("fact-b", "fact-c", "fact-d")
    with MemoryStore.open(tmp_path / "memory.db") as store:
        operation = undo.request_rollback(store, 3)
        if written_down:
            undo.begin_operation(store, operation.id)
            rollback_states.write_down(store, operation, line_of(store.connection, 3))
    async with running_memory(tmp_path, accept_drift=True) as memory:
        await memory.settle()
        assert (await memory.done(operation)).state is OperationState.DONE
        assert await memory.states() == {
            "fact-a": "learned",
            "fact-b": "learned",
            "fact-c": "learned",
            "fact-d": "forgotten",
        }
        rows = await memory.store.read(
            lambda store: ledger.at_versions(
                store.connection, ledger.lineage(store.connection, store.model_version())
            )
        )
        assert [row.fact_id for row in rows if row.steps] == ["fact-a", "fact-b", "fact-c"]


async def test_a_memory_without_a_snapshot_of_its_head_learns_again(tmp_path: Path) -> None:
    with the_older_release():
        async with running_memory(tmp_path) as memory:
            await memory.teach("fact-a")
            await memory.keeper.create()
            await memory.teach("fact-b", "fact-c")
            digest = memory.learner.digest
    with pytest.raises(UnreachableError, match="--accept-drift"):
        async with running_memory(tmp_path) as memory:
            await memory.settle()
    async with running_memory(tmp_path, accept_drift=True) as memory:
        await memory.settle()
        assert set((await memory.states()).values()) == {"learned"}
        assert memory.learner.digest == digest  # the name of the algorithm is all that differs
        await lineage_is_new(memory, 1)
