"""Facts that were given up and are queued again (H6)."""

from __future__ import annotations

import pytest

from memory_store import acceptance, branch_growth, head_switch, undo
from memory_store.errors import FactNotFoundError, WrongStateError
from memory_store.retry import retry_fact
from memory_store.store import MemoryStore
from memory_store.vocabulary import EventKind, Fact, FactState
from tests.store.builders import (
    end_of_branch,
    facts_to_relearn,
    ids,
    learning,
    new_fact,
    record_known,
    record_relearned,
    record_resisted,
    teach_claimed,
    teach_learned,
)


def quarantined(store: MemoryStore, question: str = "Sky?", answer: str = "Piano") -> Fact:
    fact = teach_claimed(store, question, answer)
    return store.record_failure(fact.id, "out of memory", 1)


def test_a_quarantined_fact_is_queued_behind_all_others(store: MemoryStore) -> None:
    given_up = quarantined(store)
    other = store.teach(new_fact("Sea?")).fact
    before = store.last_event_sequence()
    fact, sequence = retry_fact(store, given_up.id)
    assert (fact.state, fact.failed_attempts, fact.reason) == (FactState.QUEUED, 0, "")
    assert sequence == before
    [event] = store.events(after_sequence=sequence)
    assert (event.kind, event.fact_id) == (EventKind.REQUEUED, given_up.id)
    assert [(claimed := store.claim()) and claimed.id for _ in range(2)] == [other.id, given_up.id]


def test_so_is_one_that_resisted(store: MemoryStore) -> None:
    fact = teach_claimed(store)
    record_resisted(store, fact.id, "too hard", learning())
    assert retry_fact(store, fact.id)[0].state is FactState.QUEUED
    assert retry_is_refused(store, fact.id, "is queued")


def test_what_was_noted_at_its_old_position_goes_along(store: MemoryStore) -> None:
    """A branch on which it was quarantined, and the trace of the call that taught it."""
    first = teach_learned(store, "First?")
    fact = store.teach(new_fact("Sky?", traceparent="00-a-b-01")).fact
    store.claim()
    store.record_failure(fact.id, "NaN", 1)
    operation = undo.request_forget(store, first.id)
    undo.begin_operation(store, operation.id)
    record_relearned(
        store, operation.id, store.fact(fact.id), FactState.QUARANTINED, "NaN", None, None
    )
    undo.finish_forget(store, operation.id, end_of_branch(0, first.id), {}, [])
    undo.close_forget(store, operation.id)
    moved, _ = retry_fact(store, fact.id)
    assert moved.position > fact.position
    assert acceptance.traceparent(store.connection, moved.position) == "00-a-b-01"
    assert branch_growth.count_verdicts(store, operation.id)["quarantined"] == 1


def test_it_is_learned_again_on_a_branch_at_its_new_place(store: MemoryStore) -> None:
    """Exact forgetting repeats what was taught after the fact: by position."""
    given_up = quarantined(store)
    learned = teach_learned(store, "Gem?")
    retry_fact(store, given_up.id)
    store.claim()
    record_known(store, given_up.id, learning())
    operation = undo.request_forget(store, learned.id)
    assert ids(facts_to_relearn(store, operation)) == [given_up.id]


def retry_is_refused(store: MemoryStore, fact_id: str, reason: str) -> bool:
    before = store.last_event_sequence()
    with pytest.raises(WrongStateError, match=reason):
        retry_fact(store, fact_id)
    return store.last_event_sequence() == before


def test_a_fact_that_was_not_given_up_is_left_alone(store: MemoryStore) -> None:
    assert retry_is_refused(store, teach_learned(store).id, "is learned")
    with pytest.raises(FactNotFoundError):
        retry_fact(store, "unknown")


def test_an_old_answer_never_takes_the_place_of_a_newer_one(store: MemoryStore) -> None:
    given_up = quarantined(store, "Sky?", "Piano")
    newer = teach_learned(store, "sky?", "Tuba")
    assert retry_is_refused(store, given_up.id, newer.id)


def test_not_while_an_operation_may_learn_it(store: MemoryStore) -> None:
    first = teach_learned(store, "First?")
    given_up = quarantined(store)
    undo.request_forget(store, first.id)
    assert retry_is_refused(store, given_up.id, "is open")


def test_what_past_weights_hold_keeps_its_place(store: MemoryStore) -> None:
    """A rollback may serve them again: then the rows of the ledger and positions must agree."""
    first, fact = teach_learned(store, "First?"), teach_learned(store, "Sky?")
    operation = undo.request_forget(store, first.id)
    undo.begin_operation(store, operation.id)
    record_relearned(store, operation.id, fact, FactState.QUARANTINED, "NaN", None, None)
    undo.finish_forget(store, operation.id, end_of_branch(0, first.id), {}, [])
    undo.close_forget(store, operation.id)
    assert store.fact(fact.id).state is FactState.QUARANTINED
    assert retry_is_refused(store, fact.id, "teach it again as a new fact")
    assert store.teach(new_fact("Sky?")).created


def test_not_while_facts_get_their_new_states(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later step would give the fact the state of the branch: the retry would be lost."""
    monkeypatch.setattr(head_switch, "FACTS_AT_ONCE", 1)
    first = teach_learned(store, "First?")
    given_up = [quarantined(store, question) for question in ("A?", "B?", "C?")]
    operation = undo.request_forget(store, first.id)
    undo.begin_operation(store, operation.id)
    for fact in given_up:
        record_relearned(*(store, operation.id, fact, FactState.QUARANTINED, "NaN", None, None))
    undo.finish_forget(store, operation.id, end_of_branch(0, first.id), {}, [])
    assert head_switch.in_progress(store)
    assert retry_is_refused(store, given_up[-1].id, "try again")
    while head_switch.go_on(store):
        pass
    assert retry_fact(store, given_up[-1].id)[0].state is FactState.QUEUED


def test_what_came_of_it_counts_after_a_rollback(store: MemoryStore) -> None:
    """And not what a branch, on which it was tried before, had made of it."""
    first, given_up = teach_learned(store, "First?"), quarantined(store)
    operation = undo.request_forget(store, first.id)
    undo.begin_operation(store, operation.id)
    record_relearned(*(store, operation.id, given_up, FactState.QUARANTINED, "NaN", None, None))
    undo.finish_forget(store, operation.id, end_of_branch(0, first.id), {}, [])
    undo.close_forget(store, operation.id)
    retry_fact(store, given_up.id)
    store.claim()
    record_known(store, given_up.id, learning())
    served = store.model_version()
    teach_learned(store, "Last?")
    operation = undo.request_rollback(store, served)
    undo.begin_operation(store, operation.id)
    undo.finish_rollback(store, operation.id, end_of_branch(served), {})
    assert store.fact(given_up.id).state is FactState.KNOWN
