"""H1: the text of an erased fact is gone with the request, whatever the weights can do."""

from __future__ import annotations

import pytest

from memory_store import ledger, operations, reviews, tombstones, undo
from memory_store.facts import companions
from memory_store.store import MemoryStore
from memory_store.vocabulary import FactState
from tests.store.builders import (
    end_of_branch,
    facts_to_relearn,
    learning,
    new_fact,
    new_probe,
    new_update,
    record_learned,
    record_relearned,
    record_resisted,
    teach_claimed,
    teach_learned,
)

QUESTION, ANSWER = "Who paid Zanzibari?", "Quillfeather"


def erase(store: MemoryStore, fact_id: str) -> None:
    undo.request_forget(store, fact_id, erase=True)


def rows_with_text(store: MemoryStore) -> list[str]:
    """Tables that have the text, but for the search that is still to be made."""
    tables = store.connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
    )
    found = []
    for table in (row["name"] for row in tables):
        for row in store.connection.execute(f"SELECT * FROM {table}"):
            values = dict(row)
            pending = table == "meta" and values["key"].startswith("erasing:")
            if not pending and any(
                t in str(v) for v in values.values() for t in (QUESTION, ANSWER)
            ):
                found.append(table)
    return found


def test_a_held_fact_loses_its_text_at_once_and_awaits_its_weights(store: MemoryStore) -> None:
    fact, _ = teach_learned(store, QUESTION, ANSWER), teach_learned(store, "Other?", "Else")
    store.record_probes([new_probe(fact.id, question=QUESTION, expected_answer=ANSWER)], 1)
    assert rows_with_text(store)
    erase(store, fact.id)
    assert rows_with_text(store) == []
    left = store.fact(fact.id)
    assert (left.erased, left.state, left.reason) == (
        True,
        FactState.SUPERSEDED,
        tombstones.REASON,
    )
    # Nothing rehearses, reviews or finds it.
    assert [f.id for f in companions(store.connection, store.facts()[1], 10)] == []
    assert store.teach(new_fact(QUESTION, ANSWER)).created
    # But the weights hold it: an operation is needed.
    [operation] = operations.erasures_not_served(store)
    assert not undo.finish_if_not_held(store, operation.id)


@pytest.mark.parametrize("state", ["queued", "resisted", "quarantined"])
def test_what_the_weights_do_not_hold_is_forgotten_at_once(store: MemoryStore, state: str) -> None:
    fact = store.teach(new_fact(QUESTION, ANSWER)).fact
    if state != "queued":
        store.claim()
        if state == "resisted":
            record_resisted(store, fact.id, "too hard", learning())
        else:
            store.record_failure(fact.id, "NaN", 1)
    erase(store, fact.id)
    assert store.fact(fact.id).state is FactState.FORGOTTEN
    assert rows_with_text(store) == []
    [operation] = operations.erasures_not_served(store)
    assert undo.finish_if_not_held(store, operation.id)


def test_what_another_operation_s_branch_has_learned_may_be_held_soon(store: MemoryStore) -> None:
    """H1, H5: its own operation would have found nothing to do, and the weights would keep it."""
    first = teach_learned(store, "Other?", "Else")
    fact = store.teach(new_fact(QUESTION, ANSWER)).fact
    store.claim()
    record_resisted(store, fact.id, "too hard", learning())
    other = undo.request_forget(store, first.id)
    begun = undo.begin_operation(store, other.id)
    record_relearned(
        store,
        other.id,
        fact,
        FactState.LEARNED,
        "",
        learning(answer_after=ANSWER),
        new_update(fact.id, begun.branch_version or 0),
    )
    erase(store, fact.id)
    assert store.fact(fact.id).state is FactState.SUPERSEDED
    [operation] = operations.erasures_not_served(store)
    assert not undo.finish_if_not_held(store, operation.id)
    # Its weights are served now: nothing rehearses, reviews or probes it.
    branch = operations.get(store, other.id).branch_version or 0
    undo.finish_forget(store, other.id, end_of_branch(branch, first.id), {}, [])
    assert store.fact(fact.id).state is FactState.SUPERSEDED


def test_a_fact_that_is_being_learned_is_erased_when_that_has_ended(store: MemoryStore) -> None:
    fact = teach_claimed(store, QUESTION, ANSWER)
    erase(store, fact.id)
    [operation] = operations.erasures_not_served(store)
    assert not store.fact(fact.id).erased
    assert not tombstones.erase_requested(store, operation)
    update = new_update(fact.id, store.model_version())
    record_learned(
        store, update, learning(answer_after=ANSWER), [new_probe(fact.id, answer=ANSWER)]
    )
    assert tombstones.erase_requested(store, operation)
    assert tombstones.erase_requested(store, operation)  # once more is nothing new
    assert rows_with_text(store) == []


def test_a_probe_that_was_on_its_way_brings_nothing_back(store: MemoryStore) -> None:
    fact = teach_learned(store, QUESTION, ANSWER)
    erase(store, fact.id)
    late = new_probe(fact.id, question=QUESTION, expected_answer=ANSWER, answer=ANSWER)
    store.record_probes([late], 1)
    assert rows_with_text(store) == []


def test_another_operation_does_not_repeat_what_was_erased(store: MemoryStore) -> None:
    first, erased, last = (teach_learned(store, q, "Else") for q in ("One?", QUESTION, "Three?"))
    operation = undo.request_forget(store, first.id)
    erase(store, erased.id)
    operation = undo.begin_operation(store, operation.id)
    assert [fact.id for fact in facts_to_relearn(store, operation)] == [last.id]


def test_the_answer_that_it_had_replaced_counts_again(store: MemoryStore) -> None:
    older = teach_learned(store, QUESTION, "Featherquill")
    newer = teach_learned(store, QUESTION, ANSWER)
    assert store.fact(older.id).superseded_by == newer.id
    erase(store, newer.id)
    assert tombstones.keys_it_superseded(store, newer.id)
    assert operations.erasures_not_served(store)
    assert reviews.next_due(store) is None


def test_what_another_operation_is_learning_again_is_not_taken_for_forgotten(
    store: MemoryStore,
) -> None:
    """Neither head nor branch holds it yet, so its text goes; but then that branch is served."""
    first = teach_learned(store, "One?", "Else")
    fact = teach_claimed(store, QUESTION, ANSWER)
    store.record_failure(fact.id, "NaN", 1)
    forget = undo.request_forget(store, first.id)
    undo.begin_operation(store, forget.id)
    erase(store, fact.id)
    assert store.fact(fact.id).state is FactState.FORGOTTEN
    row = record_relearned(
        *(store, forget.id, fact, FactState.LEARNED, "", learning(), new_update(fact.id, 0))
    )
    assert row is not None
    undo.finish_forget(*(store, forget.id, end_of_branch(row.model_version, first.id), {}, []))
    undo.close_forget(store, forget.id)
    operation = operations.oldest_not_served(store)
    assert operation is not None
    assert not undo.finish_if_not_held(store, operation.id)
    operation = undo.begin_operation(store, operation.id)
    undo.finish_forget(store, operation.id, end_of_branch(0, fact.id), {}, [])
    undo.close_forget(store, operation.id)
    assert store.model_version() not in ledger.lineage(store.connection, row.model_version)
    assert row.model_version not in ledger.lineage(store.connection, store.model_version())
    assert store.fact(fact.id).state is FactState.FORGOTTEN


def test_nor_is_what_a_rollback_serves_again(store: MemoryStore) -> None:
    """It was rolled back, and is to be forgotten while those weights are on their way back."""
    fact = teach_learned(store, QUESTION, ANSWER)
    for to_version in (0, 1):
        rollback = undo.request_rollback(store, to_version)
        if to_version:
            erase(store, fact.id)
        undo.begin_operation(store, rollback.id)
        undo.finish_rollback(store, rollback.id, end_of_branch(to_version), {})
    operation = operations.oldest_not_served(store)
    assert operation is not None
    assert not undo.finish_if_not_held(store, operation.id)
