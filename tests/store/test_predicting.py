"""What the policy `predicted` needs of the store: features in steps, and the last of a lineage."""

from __future__ import annotations

from dataclasses import replace

from memory_store import ledger, undo
from memory_store.encoding import read_policy, read_steps, write_policy, write_steps
from memory_store.store import MemoryStore
from memory_store.vocabulary import FactState, Guards, LedgerKind, Policy, Step
from tests.store.builders import (
    end_of_branch,
    learning,
    ledger_rows,
    new_fact,
    new_update,
    record_learned,
    record_relearned,
    teach_learned,
)

POLICY = Policy(
    name="predicted", learning_rate=1e-4, max_steps=12, predictor=(0.1 + 0.2, 30.0, -4.0, 1e-300)
)
STEP = Step(
    learning_rate=1e-4,
    loss=2.0,
    probability=0.5,
    rehearsed_fact_ids=("a",),
    gradient_norm=0.1 + 0.2,
    answer_tokens=4,
    candidates=16,
)


def test_features_and_predictor_are_in_the_ledger_to_the_last_bit(store: MemoryStore) -> None:
    store.teach(new_fact())
    fact = store.claim()
    assert fact is not None
    new = new_update(fact.id, 0, steps=(STEP,), policy=POLICY)
    row = record_learned(store, new, learning())
    assert (row.steps, row.policy) == ((STEP,), POLICY)
    assert ledger_rows(store.connection) == [row]


def test_records_of_before_are_read_with_nothing_in_the_new_fields() -> None:
    old_step = '[[0.0001,2.0,0.5,["a"]]]'
    assert read_steps(old_step) == (
        replace(STEP, gradient_norm=0.0, answer_tokens=0, candidates=0),
    )
    old_policy = (
        '{"guards":{"candidates":16,"controls":0,"neighbours":0,"rehearsed":16,"texts":0},'
        '"learning_rate":0.0001,"max_steps":12,"name":"search"}'
    )
    guards = Guards(candidates=16, rehearsed=16)
    assert read_policy(old_policy) == replace(POLICY, name="search", guards=guards, predictor=None)


def test_records_survive_their_json() -> None:
    assert read_steps(write_steps((STEP, STEP))) == (STEP, STEP)
    assert read_policy(write_policy(POLICY)) == POLICY


def test_the_last_updates_are_those_of_the_lineage(store: MemoryStore) -> None:
    for name in ("a", "b", "c"):
        teach_learned(store, name)
    back = undo.request_rollback(store, 2)
    undo.begin_operation(store, back.id)
    undo.finish_rollback(store, back.id, end_of_branch(2), {})
    teach_learned(store, "d")
    for limit, versions in ((1, [5]), (3, [2, 4, 5]), (9, [1, 2, 4, 5])):
        assert [row.model_version for row in ledger.recent(store.connection, 5, limit)] == versions
    assert ledger.recent(store.connection, 0, 9) == []


def test_a_forgotten_update_is_not_among_the_last(store: MemoryStore) -> None:
    facts = [teach_learned(store, name) for name in ("a", "b")]
    operation = undo.request_forget(store, facts[0].id)
    undo.begin_operation(store, operation.id)
    again = new_update(facts[1].id, 0)
    record_relearned(
        store, operation.id, store.fact(facts[1].id), FactState.LEARNED, "", learning(), again
    )
    end = end_of_branch(3, facts[0].id)
    undo.finish_forget(store, operation.id, end, {}, [])
    rows = ledger.recent(store.connection, store.model_version(), 9)
    assert [(row.kind, row.fact_id) for row in rows] == [
        (LedgerKind.RELEARN, facts[1].id),
        (LedgerKind.FORGET, facts[0].id),
    ]
