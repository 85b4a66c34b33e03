"""Serving an earlier version because a later one cannot be reached, in short steps (H5)."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from memory_store import branch_growth, fresh_start, head_switch, operations, undo
from memory_store.facts import count_by_state
from memory_store.store import MemoryStore
from memory_store.vocabulary import EventKind, FactState, OperationState
from memory_store.writer import StoreThreads
from tests.store import integrity
from tests.store.builders import (
    Clock,
    end_of_branch,
    facts_to_relearn,
    learning,
    new_fact,
    new_update,
    record_known,
    record_relearned,
    record_resisted,
    teach_claimed,
    teach_learned,
)

REACHED = 2  # the version that can be reached
WHY = "update 3 was made by another release"
EXPECTED = {
    "first?": "learned",
    "known?": "known",
    "Sky?": "known",  # its newer answer was learned later
    "hard?": "queued",
    "Sky? again": "queued",
    "forgotten?": "forgotten",
    "waiting?": "queued",
    "erased early": "superseded",  # the reached weights may hold it
    "erased late": "forgotten",
}


def start_over(store: MemoryStore) -> None:
    fresh_start.start_over(store, end_of_branch(REACHED), WHY)


def lived(path: Path) -> dict[str, str]:
    """A memory with a bit of everything, and an operation in progress; ids by name."""
    with MemoryStore.open(path, now=Clock()) as store:
        ids = {"first?": teach_learned(store, "first?").id}  # 1
        known = teach_claimed(store, "known?")
        record_known(store, known.id, learning())
        ids["known?"] = known.id
        ids["erased early"] = teach_learned(store, "early?", "Piano").id  # 2
        ids["Sky?"] = teach_claimed(store, "Sky?", "Piano").id
        record_known(store, ids["Sky?"], learning())
        ids["erased late"] = teach_learned(store, "late?", "Curtain").id  # 3
        ids["hard?"] = teach_claimed(store, "hard?").id
        record_resisted(store, ids["hard?"], "too hard", learning())
        ids["Sky? again"] = teach_learned(store, "Sky?", "Violin").id  # 4
        last = teach_claimed(store, "forgotten?")
        store.record_failure(last.id, "NaN", 1)
        ids["forgotten?"] = last.id
        operation = undo.request_forget(store, last.id)
        assert undo.finish_if_not_held(store, operation.id)
        begun = undo.request_forget(store, ids["known?"])
        branch = undo.begin_operation(store, begun.id).branch_version or 0
        for fact in facts_to_relearn(store, begun):
            update = new_update(fact.id, branch)
            row = record_relearned(
                *(store, begun.id, fact, FactState.LEARNED, "", learning(), update)
            )
            assert row is not None
            branch = row.model_version
        for name in ("early", "late"):
            undo.request_forget(store, ids[f"erased {name}"], erase=True)
        ids["waiting?"] = store.teach(new_fact("waiting?")).fact.id
        return ids


def states(store: MemoryStore, ids: dict[str, str]) -> dict[str, str]:
    return {name: str(store.fact(fact_id).state) for name, fact_id in ids.items()}


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FACTS_AT_ONCE", "REVIEWS_AT_ONCE", "ROWS_AT_ONCE"):
        monkeypatch.setattr(head_switch, name, 1)


def check(store: MemoryStore, ids: dict[str, str]) -> None:
    """Everything that a fresh start promises."""
    assert not head_switch.in_progress(store)
    assert states(store, ids) == EXPECTED
    assert store.fact(ids["Sky?"]).superseded_by == ""
    assert store.fact(ids["hard?"]).learning is None
    events = store.events(limit=1_000)
    requeued = [event for event in events if event.kind is EventKind.REQUEUED]
    assert [event.fact_id for event in requeued] == [ids["hard?"], ids["Sky? again"]]
    assert {event.message for event in requeued} == {f"learned again from version {REACHED}"}
    [rolled_back] = [event for event in events if event.kind is EventKind.ROLLED_BACK]
    assert rolled_back.message == f"to version {REACHED}, since {WHY}; 2 facts are learned again"
    operation = operations.get(store, 2)
    assert (operation.state, operation.branch_version) == (OperationState.PENDING, None)
    assert (operation.done, operation.total) == (0, 0)
    assert store.connection.execute("SELECT 1 FROM relearned") == []
    assert integrity.problems(store.connection) == []


def test_what_followed_the_version_is_queued_again(tmp_path: Path) -> None:
    ids = lived(tmp_path / "memory.db")
    with MemoryStore.open(tmp_path / "memory.db") as store:
        start_over(store)
        while head_switch.go_on(store):
            pass
        check(store, ids)


@pytest.mark.usefixtures("one_at_a_time")
async def test_it_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    """H5: the server is killed after the head has moved, and after each of some steps."""
    path = tmp_path / "memory.db"
    ids = lived(path)
    with MemoryStore.open(path) as store:
        start_over(store)
        head = store.model_version()
        assert head_switch.in_progress(store)
    for _ in range(9):
        with MemoryStore.open(path) as store:
            assert head_switch.go_on(store)
            assert store.model_version() == head
    threads = await StoreThreads.open(path)
    await threads.read(partial(check, ids=ids))
    await threads.close()


@pytest.mark.usefixtures("one_at_a_time")
async def test_facts_are_accepted_meanwhile_and_keep_their_place(tmp_path: Path) -> None:
    """H5."""
    path = tmp_path / "memory.db"
    ids = lived(path)
    store = await StoreThreads.open(path)
    async with store.switching():
        await store.write(start_over)
        reading = asyncio.create_task(store.read(partial(states, ids=ids)))
        [accepted] = await store.teach([new_fact("meanwhile?")])
        assert accepted.created  # type: ignore[union-attr]
        assert not reading.done()
    assert await reading == EXPECTED
    await store.read(partial(check, ids=ids))
    facts = await store.read(MemoryStore.facts)
    assert (facts[-1].question, facts[-1].state) == ("meanwhile?", FactState.QUEUED)
    await store.close()


def test_no_step_changes_more_rows_than_its_limit(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H5: counted, since times differ from machine to machine."""
    limit, number = 10, 95
    monkeypatch.setattr(head_switch, "FACTS_AT_ONCE", limit)
    monkeypatch.setattr(head_switch, "ROWS_AT_ONCE", limit)
    first = teach_learned(store, "first?")
    for place in range(number):
        teach_learned(store, f"q{place}?")
    operation = undo.request_forget(store, first.id)
    branch = undo.begin_operation(store, operation.id).branch_version or 0
    for fact in facts_to_relearn(store, operation):
        row = record_relearned(
            *(store, operation.id, fact, FactState.LEARNED, "", learning()),
            update=new_update(fact.id, branch),
        )
        assert row is not None
        branch = row.model_version
    changed, connection = [], store.connection.database.conn

    def count(step: object) -> object:
        before = connection.total_changes
        result = step(store)  # type: ignore[operator]
        changed.append(connection.total_changes - before)
        return result

    count(start_over)
    while count(head_switch.go_on):
        pass
    assert len(changed) >= number // limit
    # Of each fact: its row, two counts of states, an event; besides, the head, the operation, the
    # note of the switch.
    assert max(changed) <= 4 * limit + 10
    assert count_by_state(store.connection)[FactState.QUEUED] == number - REACHED + 1
    assert store.connection.execute("SELECT 1 FROM relearned") == []


def test_an_operation_begins_again_on_an_empty_branch(store: MemoryStore) -> None:
    """Whatever its last attempt had left, such as after a crash before that was removed."""
    first, second = teach_learned(store, "first?"), teach_learned(store, "second?")
    operation = undo.request_forget(store, first.id)
    for _ in range(2):
        branch = undo.begin_operation(store, operation.id).branch_version or 0
        assert [fact.id for fact in facts_to_relearn(store, operation)] == [second.id]
        record_relearned(
            *(store, operation.id, second, FactState.LEARNED, "", learning()),
            update=new_update(second.id, branch),
        )
        undo.begin_anew(store, operation.id)
    assert branch_growth.remove_dropped(store)
    assert not branch_growth.remove_dropped(store)
