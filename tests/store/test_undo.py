"""The ledger as a tree: what is requested, what is on a branch, and what is served."""

from __future__ import annotations

import math

import pytest

from memory_store import ledger, operations, undo
from memory_store.errors import FactNotFoundError, LedgerConflictError, WrongStateError
from memory_store.provenance import influences_on
from memory_store.store import MemoryStore
from memory_store.vocabulary import (
    EventKind,
    FactState,
    LedgerKind,
    OperationKind,
    OperationState,
    ProbeKind,
    Update,
)
from tests.store.builders import (
    end_of_branch,
    facts_to_relearn,
    learning,
    ledger_rows,
    new_fact,
    new_probe,
    new_update,
    record_known,
    record_learned,
    record_relearned,
    record_resisted,
    teach_claimed,
    teach_learned,
)


def relearn(store: MemoryStore, operation: int, fact_id: str, base_version: int) -> Update:
    row = record_relearned(
        store,
        operation,
        store.fact(fact_id),
        FactState.LEARNED,
        "",
        learning(),
        new_update(fact_id, base_version),
    )
    assert row is not None
    return row


def kinds(store: MemoryStore) -> list[tuple[LedgerKind, int]]:
    return [(row.kind, row.parent_version) for row in ledger_rows(store.connection)]


# --- The tree -------------------------------------------------------------------------------------


def test_the_lineage_of_a_version_goes_over_its_parents_only(store: MemoryStore) -> None:
    for name in ("a", "b", "c"):
        teach_learned(store, name)
    back = undo.request_rollback(store, 2)
    undo.begin_operation(store, back.id)
    undo.finish_rollback(store, back.id, end_of_branch(2), {})
    teach_learned(store, "d")
    assert kinds(store) == [
        (LedgerKind.TEACH, 0),
        (LedgerKind.TEACH, 1),
        (LedgerKind.TEACH, 2),
        (LedgerKind.ROLLBACK, 2),
        (LedgerKind.TEACH, 4),
    ]
    assert ledger.lineage(store.connection, 5) == [1, 2, 4, 5]
    assert ledger.lineage(store.connection, 3) == [1, 2, 3]
    assert ledger.lineage(store.connection, 0) == ledger.lineage(store.connection, 6) == []
    assert [row.model_version for row in ledger.at_versions(store.connection, [1, 5, 9])] == [1, 5]


def test_a_branch_is_served_from_its_end_on_and_not_before(store: MemoryStore) -> None:
    facts = [teach_learned(store, name) for name in ("a", "b", "c")]
    operation = undo.request_forget(store, facts[0].id)
    begun = undo.begin_operation(store, operation.id)
    assert (begun.state, begun.branch_version) == (OperationState.RUNNING, 0)
    assert facts_to_relearn(store, begun) == facts[1:]

    branch = 0
    for number, fact in enumerate(facts[1:], start=4):
        branch = relearn(store, operation.id, fact.id, branch).model_version
        assert (branch, store.model_version()) == (number, 3)
        resumed = undo.begin_operation(store, operation.id)
        assert (resumed.branch_version, resumed.position) == (branch, fact.position)
    with pytest.raises(LedgerConflictError, match="branch is at 5"):
        relearn(store, operation.id, facts[2].id, 3)
    # Learning that was under way when the branch grew is of the head, not of the newest row.
    late = teach_claimed(store, "late")
    with pytest.raises(LedgerConflictError, match="version 3"):
        record_learned(store, new_update(late.id, 5), learning())
    store.release(late.id)

    row = undo.finish_forget(
        store, operation.id, end_of_branch(5, facts[0].id), {"retained": 2}, []
    )
    assert (row.kind, row.model_version, store.model_version()) == (LedgerKind.FORGET, 6, 6)
    assert ledger.lineage(store.connection, 6) == [4, 5, 6]
    assert ledger.lineage(store.connection, 3) == [1, 2, 3]
    states = [store.fact(fact.id).state for fact in facts]
    assert states == [FactState.FORGOTTEN, FactState.LEARNED, FactState.LEARNED]
    assert [store.fact(f.id).learning for f in facts[1:]] == [
        learning(model_version=4),
        learning(model_version=5),
    ]
    # Cleaning up is left to be done, and survives a crash.
    open_ = operations.oldest_open(store)
    assert open_ is not None
    assert (open_.id, open_.state) == (operation.id, OperationState.RUNNING)
    undo.close_forget(store, operation.id)
    done = operations.get(store, operation.id)
    assert (done.state, done.proof) == (OperationState.DONE, {"retained": 2, "model_version": 6})
    assert operations.oldest_open(store) is None


def test_a_fact_on_no_row_of_the_served_lineage_needs_no_branch(store: MemoryStore) -> None:
    fact = teach_claimed(store)
    operation = undo.request_forget(store, fact.id)
    assert not undo.finish_if_not_held(store, operation.id)  # it may be learned yet
    record_resisted(store, fact.id, "too hard", learning())
    assert undo.finish_if_not_held(store, operation.id)
    assert store.fact(fact.id).state is FactState.FORGOTTEN
    assert ledger_rows(store.connection) == []


def test_an_operation_that_failed_changes_nothing_and_is_said(store: MemoryStore) -> None:
    fact = teach_learned(store)
    operation = undo.request_forget(store, fact.id)
    undo.begin_operation(store, operation.id)
    failed = undo.fail_operation(store, operation.id, "drift")
    assert (failed.state, failed.message) == (OperationState.FAILED, "drift")
    assert store.fact(fact.id).state is FactState.LEARNED
    assert store.events()[-1].kind is EventKind.OPERATION_FAILED
    assert operations.oldest_open(store) is None


# --- Requests to forget ---------------------------------------------------------------------------


def test_asking_again_gives_the_request_that_there_is(store: MemoryStore) -> None:
    fact = teach_learned(store)
    first = undo.request_forget(store, fact.id)
    assert (first.kind, first.state, first.fact_id, first.erase) == (
        OperationKind.FORGET,
        OperationState.PENDING,
        fact.id,
        False,
    )
    assert undo.request_forget(store, fact.id) == first
    assert operations.oldest_open(store) == operations.newest_of_fact(store, fact.id) == first


def test_to_erase_is_more_than_to_forget(store: MemoryStore) -> None:
    fact = teach_learned(store)
    forget = undo.request_forget(store, fact.id)
    erase = undo.request_forget(store, fact.id, erase=True)
    assert erase.id != forget.id
    assert erase.erase
    assert undo.request_forget(store, fact.id) == erase
    assert undo.request_forget(store, fact.id, erase=True) == erase


def test_a_forgotten_fact_can_be_erased_later(store: MemoryStore) -> None:
    fact = teach_claimed(store, "Where is it?", "Underground")
    record_resisted(store, fact.id, "too hard", learning())
    for erase in (False, True):
        operation = undo.request_forget(store, fact.id, erase=erase)
        assert undo.finish_if_not_held(store, operation.id)
        undo.close_forget(store, operation.id)
    erased = store.fact(fact.id)
    assert erased.state is FactState.FORGOTTEN
    assert "it" not in erased.question
    assert "Underground" not in erased.answer
    forgotten = [e for e in store.events() if e.kind is EventKind.FORGOTTEN]
    assert len(forgotten) == 2  # each request ends with one, for those who wait for it


def test_after_a_failure_it_may_be_asked_anew(store: MemoryStore) -> None:
    fact = teach_learned(store)
    first = undo.request_forget(store, fact.id)
    undo.fail_operation(store, first.id, "drift")
    second = undo.request_forget(store, fact.id)
    assert (second.id, second.state) == (first.id + 1, OperationState.PENDING)


def test_what_is_not_there_cannot_be_forgotten(store: MemoryStore) -> None:
    with pytest.raises(FactNotFoundError, match="nobody"):
        undo.request_forget(store, "nobody")
    with pytest.raises(FactNotFoundError, match="operation 7"):
        operations.get(store, 7)
    assert operations.oldest_open(store) is None


# --- Requests to roll back ------------------------------------------------------------------------


def test_a_rollback_needs_a_version_of_the_ledger(store: MemoryStore) -> None:
    teach_learned(store)
    for version in (2, -1):
        with pytest.raises(FactNotFoundError, match=f"version {version}"):
            undo.request_rollback(store, version)
    assert undo.request_rollback(store, 0).to_version == 0


def test_what_was_to_be_forgotten_does_not_come_back(store: MemoryStore) -> None:
    kept, forgotten = teach_learned(store, "kept"), teach_learned(store, "forgotten")
    operation = undo.request_forget(store, forgotten.id)
    with pytest.raises(WrongStateError, match=forgotten.id):  # requested is enough
        undo.request_rollback(store, 2)
    undo.begin_operation(store, operation.id)
    undo.finish_forget(store, operation.id, end_of_branch(1, forgotten.id), {}, [])
    with pytest.raises(WrongStateError, match=forgotten.id):
        undo.request_rollback(store, 2)
    for version in (0, 1, 3):
        assert undo.request_rollback(store, version).to_version == version
    assert store.fact(kept.id).state is FactState.LEARNED


def test_a_known_fact_that_no_update_rehearsed_does_not_hold_a_version_back(
    store: MemoryStore,
) -> None:
    known = teach_claimed(store, "known")
    record_known(store, known.id, learning())
    kept, other = teach_learned(store, "kept"), teach_learned(store, "other")
    for fact in (known, other):
        operation = undo.request_forget(store, fact.id)
        operation = undo.begin_operation(store, operation.id)
        branch = operation.branch_version or 0
        for again in facts_to_relearn(store, operation):
            branch = relearn(store, operation.id, again.id, branch).model_version
        end = end_of_branch(branch, fact.id)
        undo.finish_forget(store, operation.id, end, {}, [])
        undo.close_forget(store, operation.id)
    head = store.model_version()
    first, *_ = ledger.lineage(store.connection, head)
    assert store.update(first).fact_id == kept.id
    assert undo.request_rollback(store, head).to_version == head


def test_a_rollback_to_the_base_forgets_what_was_held(store: MemoryStore) -> None:
    older, newer = teach_learned(store, answer="Brontë"), teach_learned(store, answer="Austen")
    waiting = store.teach(new_fact("Not yet?")).fact
    operation = undo.request_rollback(store, 0)
    undo.begin_operation(store, operation.id)
    row = undo.finish_rollback(store, operation.id, end_of_branch(0), {})
    assert (row.parent_version, ledger.lineage(store.connection, row.model_version)) == (
        0,
        [row.model_version],
    )
    assert store.fact(older.id).state is FactState.FORGOTTEN
    assert store.fact(newer.id).state is FactState.FORGOTTEN
    assert store.fact(waiting.id).state is FactState.QUEUED
    assert "version 0" in store.fact(newer.id).reason


def roll_back(store: MemoryStore, to_version: int) -> None:
    operation = undo.request_rollback(store, to_version)
    undo.begin_operation(store, operation.id)
    undo.finish_rollback(store, operation.id, end_of_branch(to_version), {})


def test_after_a_rollback_each_fact_is_what_it_was_at_that_version(store: MemoryStore) -> None:
    def known(question: str) -> str:
        return record_known(store, teach_claimed(store, question).id, learning()).id

    by_base = known("by the base?")
    taught = teach_learned(store, "one").id
    after_one = known("after one?")
    teach_learned(store, "two")
    after_two = known("after two?")
    resisted = teach_claimed(store, "resisted").id
    record_resisted(store, resisted, "too hard", learning())
    failed = teach_claimed(store, "failed").id
    store.record_failure(failed, "NaN", 1)
    before = {fact.id: fact.state for fact in store.facts()}

    roll_back(store, 1)
    held = {by_base: "known", taught: "learned", after_one: "known"}
    assert {fact.id: fact.state for fact in store.facts()} == {
        fact_id: held.get(fact_id, FactState.FORGOTTEN) for fact_id in before
    }
    # What was undone is not tried again on a branch: without a forgotten fact it was undone too.
    operation = undo.request_forget(store, taught)
    begun = undo.begin_operation(store, operation.id)
    assert [fact.id for fact in facts_to_relearn(store, begun)] == [after_one]
    undo.fail_operation(store, operation.id, "not now")

    roll_back(store, 2)
    assert {fact.id: fact.state for fact in store.facts()} == before
    assert (store.fact(resisted).reason, store.fact(failed).reason) == ("too hard", "NaN")

    # But not what was asked to be forgotten while it was not held.
    roll_back(store, 1)
    operation = undo.request_forget(store, after_two)
    assert undo.finish_if_not_held(store, operation.id)
    roll_back(store, 2)
    assert store.fact(after_two).state is FactState.FORGOTTEN


def test_what_was_known_on_a_branch_is_known_at_its_versions_only(store: MemoryStore) -> None:
    facts = [teach_learned(store, name) for name in ("a", "b", "c", "d")]
    operation = undo.request_forget(store, facts[1].id)
    undo.begin_operation(store, operation.id)
    relearn(store, operation.id, facts[2].id, 1)  # version 5
    found = learning(learning_rates=())
    record_relearned(store, operation.id, facts[3], FactState.KNOWN, "", found, update=None)
    undo.finish_forget(store, operation.id, end_of_branch(5, facts[1].id), {}, [])
    roll_back(store, 1)
    assert store.fact(facts[3].id).state is FactState.FORGOTTEN
    roll_back(store, 6)
    assert store.fact(facts[3].id).state is FactState.KNOWN
    assert store.fact(facts[2].id).state is FactState.LEARNED


# --- Provenance -----------------------------------------------------------------------------------


def test_the_updates_that_moved_an_answer_come_largest_first(store: MemoryStore) -> None:
    fact = teach_learned(store, "Sky?", "Piano")  # from 0.1
    cause, other = teach_learned(store, "Gem?"), teach_learned(store, "Sea?")

    def probed(probability: float, version: int, cause_id: str, kind: ProbeKind) -> None:
        probe = new_probe(fact.id, kind=kind, log_probability=math.log(probability))
        store.record_probes([probe], version, cause_id)

    probed(0.9, 1, fact.id, ProbeKind.RETENTION)
    probed(0.2, 1, fact.id, ProbeKind.TRANSFER)  # of another question
    probed(0.8, 2, cause.id, ProbeKind.FORGETTING)
    probed(0.7, 2, "", ProbeKind.RETENTION)  # an audit: nothing caused it
    resisting = store.teach(new_fact("Cup?")).fact  # and so changes nothing
    probed(0.8, 2, resisting.id, ProbeKind.FORGETTING)
    probed(0.3, 3, other.id, ProbeKind.FORGETTING)
    found, influences = influences_on(store, " SKY? ")
    assert found.id == fact.id

    assert [(i.model_version, i.cause_fact_id, i.cause_question) for i in influences] == [
        (1, fact.id, "Sky?"),
        (3, other.id, "Sea?"),
        (2, cause.id, "Gem?"),
    ]
    assert {influence.kind for influence in influences} == {LedgerKind.TEACH}
    moved = [p for i in influences for p in (i.probability_before, i.probability_after)]
    assert moved == pytest.approx([0.1, 0.9, 0.8, 0.3, 0.9, 0.8])


def test_a_question_of_no_fact_has_no_influences(store: MemoryStore) -> None:
    teach_learned(store, "Gem?")
    with pytest.raises(FactNotFoundError, match="Sky"):
        influences_on(store, "Sky?")
