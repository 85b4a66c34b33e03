"""A branch begins to be served in short steps, and nobody sees one of them alone (H5)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from memory_store import (
    branch_growth,
    head_switch,
    operations,
    reviews,
    rollback_states,
    undo,
    writer,
)
from memory_store.errors import StoreUnusableError
from memory_store.facts import count_by_state
from memory_store.store import MemoryStore
from memory_store.vocabulary import FactState, OperationState, ReviewOutcome
from memory_store.writer import StoreThreads
from tests.store import integrity
from tests.store.builders import (
    Clock,
    end_of_branch,
    facts_to_relearn,
    learning,
    new_fact,
    new_review,
    new_update,
    record_known,
    record_relearned,
    record_resisted,
    reviews_to_repeat,
    teach_claimed,
    teach_learned,
)

# Times differ with the number of transactions.
TIMES = ("updated_at", "due_at")


def lived(path: Path) -> list[str]:
    """A memory with a bit of everything; the ids of its facts."""
    with MemoryStore.open(path, now=Clock()) as store:
        first = teach_learned(store, "first?")
        known = teach_claimed(store, "known?")
        record_known(store, known.id, learning())
        old = teach_learned(store, "Sky?", "Piano")
        hard = teach_claimed(store, "hard?")
        record_resisted(store, hard.id, "too hard", learning())
        new = teach_learned(store, "Sky?", "Violin")
        head = store.model_version()
        reviews.record_review(store, new_review(first.id, head, ReviewOutcome.RETAUGHT))
        last = teach_learned(store, "last?")
        return [first.id, known.id, old.id, hard.id, new.id, last.id]


def forget(store: MemoryStore, fact_id: str) -> None:
    """Forgets a fact up to the transaction that moves the head."""
    operation = undo.request_forget(store, fact_id)
    operation = undo.begin_operation(store, operation.id)
    branch = operation.branch_version or 0
    for fact in facts_to_relearn(store, operation):
        fell = fact.question == "known?"
        row = record_relearned(
            *(store, operation.id, fact),
            FactState.RESISTED if fell else FactState.LEARNED,
            "fell" if fell else "",
            learning(),
            None if fell else new_update(fact.id, branch),
        )
        branch = row.model_version if row else branch
    for again in reviews_to_repeat(store, operation):
        review = new_review(again.fact_id, branch, ReviewOutcome.RETAUGHT)
        row = branch_growth.record_reviewed_again(store, operation.id, again, review)
        assert row is not None
        branch = row.model_version
    undo.finish_forget(store, operation.id, end_of_branch(branch, fact_id), {}, [])


def roll_back(store: MemoryStore, to_version: int) -> None:
    operation = undo.request_rollback(store, to_version)
    undo.begin_operation(store, operation.id)
    teach_learned(store, "since?")
    undo.finish_rollback(store, operation.id, end_of_branch(to_version), {})


def facts_of(store: MemoryStore) -> list[dict[str, Any]]:
    rows = map(dict, store.connection.execute("SELECT * FROM facts ORDER BY position"))
    kept = [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
    assert store.connection.execute("SELECT 1 FROM restated") == []
    return kept


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def change() -> None:
        for name in ("FACTS_AT_ONCE", "REVIEWS_AT_ONCE", "ROWS_AT_ONCE"):
            monkeypatch.setattr(head_switch, name, 1)
        monkeypatch.setattr(rollback_states, "FACTS_AT_ONCE", 1)

    return change


ACTIONS: dict[str, Callable[[MemoryStore, list[str]], None]] = {
    "forget the first": lambda store, ids: forget(store, ids[0]),
    "forget the newer answer": lambda store, ids: forget(store, ids[4]),
    "forget the last": lambda store, ids: forget(store, ids[5]),
    "roll back to the base": lambda store, ids: roll_back(store, 0),
    "roll back to 2": lambda store, ids: roll_back(store, 2),
}


@pytest.mark.parametrize("name", ACTIONS)
async def test_steps_come_to_the_same_as_one_transaction_though_it_is_killed_in_between(
    tmp_path: Path, one_at_a_time: Callable[[], None], name: str
) -> None:
    """H5: the server is killed after the head has moved, and after each step."""
    act, found = ACTIONS[name], []
    monkey = iter((None, one_at_a_time))
    for folder in ("at once", "in steps"):
        if (change := next(monkey)) is not None:
            change()
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "memory.db"
        ids = lived(path)
        with MemoryStore.open(path, now=Clock()) as store:
            act(store, ids)
            assert head_switch.in_progress(store) == (folder == "in steps")
        if folder == "in steps":
            with MemoryStore.open(path, now=Clock()) as store:  # killed, and started again
                assert head_switch.go_on(store)
        threads = await StoreThreads.open(path)
        assert not await threads.read(head_switch.in_progress)
        assert [fact.id for fact in await threads.read(MemoryStore.facts)][: len(ids)] == ids
        await threads.close()
        with MemoryStore.open(path) as store:
            rows = facts_of(store)
            number = {row["id"]: row["position"] for row in rows}
            for row in rows:  # ids are random
                row["superseded_by"] = number.get(row["superseded_by"])
                row["id"] = row["sample_key"] = None
            found.append(
                (rows, count_by_state(store.connection), [event.kind for event in store.events()])
            )
            assert integrity.problems(store.connection) == []
            operation = operations.get(store, 1)
            assert operation.proof is not None
            assert (operation.state is OperationState.DONE) == ("roll" in name)
    assert found[0] == found[1]


async def test_nobody_reads_in_the_middle_and_facts_are_accepted(
    tmp_path: Path, one_at_a_time: Callable[[], None]
) -> None:
    """H5."""
    path = tmp_path / "memory.db"
    ids = lived(path)
    one_at_a_time()
    store = await StoreThreads.open(path)
    async with store.switching():
        await store.write(partial(forget, fact_id=ids[0]))
        assert store.is_switching
        reading = asyncio.create_task(store.read(MemoryStore.facts))
        [accepted] = await store.teach([new_fact("meanwhile?")])
        assert accepted.created  # type: ignore[union-attr]
        assert not reading.done()
    facts = await reading
    assert [fact.state for fact in facts][:2] == [FactState.FORGOTTEN, FactState.RESISTED]
    assert facts[-1].question == "meanwhile?"
    await store.close()


async def test_it_is_finished_though_its_caller_is_cancelled_and_the_disk_is_full_for_a_while(
    tmp_path: Path, one_at_a_time: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """H5: else states are half old, half new, until a restart; another switch would drop it."""
    path = tmp_path / "memory.db"
    ids = lived(path)
    one_at_a_time()
    monkeypatch.setattr(writer, "SWITCH_RETRY_SECONDS", 0)
    failures = [StoreUnusableError("the disk is full")] * 2
    go_on = head_switch.go_on

    def sometimes_full(store: MemoryStore) -> bool:
        if failures:
            raise failures.pop()
        return go_on(store)

    monkeypatch.setattr(head_switch, "go_on", sometimes_full)
    store = await StoreThreads.open(path)
    begun = asyncio.Event()

    async def operate() -> None:
        async with store.switching():
            await store.write(partial(forget, fact_id=ids[0]))
            begun.set()
            await asyncio.Event().wait()

    operating = asyncio.create_task(operate())
    await begun.wait()
    operating.cancel()
    await asyncio.wait([operating])
    facts = await store.read(MemoryStore.facts)
    assert not await store.read(head_switch.in_progress)
    assert [fact.state for fact in facts][:2] == [FactState.FORGOTTEN, FactState.RESISTED]
    assert failures == []
    await store.close()


async def test_nobody_waits_for_a_switch_that_a_full_disk_did_not_let_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H5: reading needs no space."""
    path = tmp_path / "memory.db"
    lived(path)
    store = await StoreThreads.open(path)

    def full(_: MemoryStore) -> bool:
        raise StoreUnusableError("the disk is full")

    monkeypatch.setattr(head_switch, "go_on", full)
    with pytest.raises(StoreUnusableError):
        async with store.switching():
            await store.write(full)
    assert len(await store.read(MemoryStore.facts)) == 6
    await store.close()
