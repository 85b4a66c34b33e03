"""The life of a fact after it was accepted: claim, ledger, failures, supersession."""

from __future__ import annotations

import math

import pysqlite3
import pytest

from memory_store import ledger, meta
from memory_store.errors import (
    FactNotFoundError,
    LedgerConflictError,
    OtherModelError,
    OtherTokenizerError,
    WrongStateError,
)
from memory_store.facts import TRANSITIONS, count_by_state
from memory_store.probes import of_fact as probes_of
from memory_store.store import MemoryStore
from memory_store.vocabulary import EventKind, FactState, ProbeKind
from tests.store.builders import (
    learning,
    ledger_rows,
    new_fact,
    new_probe,
    new_update,
    record_known,
    record_learned,
    record_resisted,
    teach_claimed,
    teach_learned,
)


def kinds(store: MemoryStore, fact_id: str) -> list[EventKind]:
    return [event.kind for event in store.events(fact_ids=[fact_id])]


def test_claims_go_from_the_oldest_on(store: MemoryStore) -> None:
    assert store.claim() is None
    for name in ("first", "second"):
        store.teach(new_fact(name, "a", fact_id=name))
    claims = [store.claim(), store.claim(), store.claim()]
    assert [fact and fact.id for fact in claims] == ["first", "second", None]
    assert claims[0] is not None
    assert claims[0].state is FactState.LEARNING
    assert claims[0].updated_at > claims[0].accepted_at
    assert kinds(store, "first") == [EventKind.ACCEPTED, EventKind.LEARNING]


def test_learning_adds_a_row_to_the_ledger(store: MemoryStore) -> None:
    fact = teach_claimed(store)
    new = new_update(fact.id, 0)
    row = record_learned(store, new, learning(), [new_probe(fact.id)])

    assert (store.model_version(), row.model_version) == (1, 1)
    assert store.update(1) == row
    assert ledger_rows(store.connection) == [row]
    assert ledger.of_fact(store.connection, fact.id) == [row]
    for name in ("fact_id", "steps", "digest_before", "digest_after", "algorithm", "environment"):
        assert getattr(row, name) == getattr(new, name)
    learned = store.fact(fact.id)
    assert learned.state is FactState.LEARNED
    assert learned.learning == learning(model_version=1)
    (event,) = store.events(after_sequence=2)
    assert (event.kind, event.fact_id, event.model_version) == (EventKind.LEARNED, fact.id, 1)
    assert event.learning == learned.learning
    (probe,) = probes_of(store.connection, fact.id)
    assert (probe.model_version, probe.cause_fact_id) == (1, fact.id)
    assert (probe.kind, probe.correct, probe.log_probability) == (ProbeKind.RETENTION, True, -0.25)


def test_an_update_on_an_old_version_is_refused_whole(store: MemoryStore) -> None:
    teach_learned(store, "q1")
    fact = teach_claimed(store, "q2")
    events = store.last_event_sequence()
    for base in (0, 2):
        with pytest.raises(LedgerConflictError, match="version 1"):
            record_learned(store, new_update(fact.id, base), learning(), [new_probe(fact.id)])
    assert store.fact(fact.id).state is FactState.LEARNING
    assert (store.model_version(), store.last_event_sequence()) == (1, events)
    assert probes_of(store.connection, fact.id) == []


def test_an_update_is_recorded_once(store: MemoryStore) -> None:
    fact = teach_learned(store)
    with pytest.raises(LedgerConflictError):
        record_learned(store, new_update(fact.id, 0), learning())
    with pytest.raises(WrongStateError):
        record_learned(store, new_update(fact.id, 1), learning())
    assert len(ledger_rows(store.connection)) == 1


def test_a_bad_probe_undoes_the_update(store: MemoryStore) -> None:
    fact = teach_claimed(store)
    with pytest.raises(FactNotFoundError):
        record_learned(store, new_update(fact.id, 0), learning(), [new_probe("nobody")])
    probe = new_probe(fact.id, log_probability=math.nan)
    with pytest.raises(ValueError, match="NaN"):
        record_learned(store, new_update(fact.id, 0), learning(), [probe])
    with pytest.raises(FactNotFoundError):
        record_learned(store, new_update("nobody", 0), learning())
    assert store.model_version() == 0
    assert store.fact(fact.id).state is FactState.LEARNING


@pytest.mark.parametrize("known", [False, True])
def test_a_new_answer_supersedes_older_ones_when_it_is_in_the_weights(
    store: MemoryStore, known: bool
) -> None:
    older = teach_learned(store, answer="Brontë")
    other = teach_learned(store, "Who wrote Villette?")
    newer = teach_claimed(store, "who wrote  EMMA?", "Austen")
    assert store.fact(older.id).state is FactState.LEARNED  # not yet
    waiting = store.teach(new_fact(answer="Woolf")).fact
    if known:
        record_known(store, newer.id, learning())
    else:
        record_learned(store, new_update(newer.id, 2), learning())

    superseded = store.fact(older.id)
    assert superseded.state is FactState.SUPERSEDED
    assert superseded.superseded_by == newer.id
    assert kinds(store, older.id)[-1] is EventKind.SUPERSEDED
    assert store.fact(other.id).state is FactState.LEARNED
    assert store.fact(waiting.id).state is FactState.QUEUED  # newer than the newer one
    assert store.fact(newer.id).superseded_by == ""


def test_an_older_answer_never_supersedes_a_newer_one(store: MemoryStore) -> None:
    older = teach_claimed(store, answer="Brontë")
    newer = teach_learned(store, answer="Austen")
    record_learned(store, new_update(older.id, 1), learning())
    assert store.fact(newer.id).state is FactState.LEARNED


def test_a_resisting_fact_supersedes_nothing(store: MemoryStore) -> None:
    older = teach_learned(store, answer="Brontë")
    newer = teach_claimed(store, answer="Austen")
    resisted = record_resisted(store, newer.id, "step limit", learning(), [new_probe(newer.id)])
    assert (resisted.state, resisted.reason) == (FactState.RESISTED, "step limit")
    assert resisted.learning == learning()
    assert store.fact(older.id).state is FactState.LEARNED
    assert store.model_version() == probes_of(store.connection, newer.id)[0].model_version == 1
    event = store.events(fact_ids=[newer.id])[-1]
    assert (event.kind, event.message) == (EventKind.RESISTED, "step limit")
    assert event.learning == learning()


def test_a_known_fact_leaves_the_ledger_alone(store: MemoryStore) -> None:
    fact = teach_claimed(store)
    known = record_known(store, fact.id, learning(learning_rates=()), [new_probe(fact.id)])
    assert known.state is FactState.KNOWN
    assert known == store.fact(fact.id)
    assert (
        store.model_version(),
        ledger_rows(store.connection),
        ledger.of_fact(store.connection, fact.id),
    ) == (
        0,
        [],
        [],
    )
    assert kinds(store, fact.id)[-1] is EventKind.KNOWN


def test_failures_are_counted_up_to_quarantine(store: MemoryStore) -> None:
    fact = teach_claimed(store)
    failed = store.record_failure(fact.id, "NaN", max_attempts=2)
    assert (failed.state, failed.failed_attempts, failed.reason) == (FactState.QUEUED, 1, "")
    assert store.claim() is not None
    failed = store.record_failure(fact.id, "out of memory", max_attempts=2)
    assert (failed.state, failed.failed_attempts) == (FactState.QUARANTINED, 2)
    assert failed.reason == "out of memory"
    assert store.claim() is None
    ends = [(event.kind, event.message) for event in store.events(fact_ids=[fact.id])][2::2]
    assert ends == [(EventKind.RETRIED, "NaN"), (EventKind.QUARANTINED, "out of memory")]


def test_a_released_fact_counts_no_attempt_and_a_claim_left_by_a_crash_does(
    store: MemoryStore,
) -> None:
    """M3: it may have caused the crash, and is quarantined if it goes on like that."""
    first, second = teach_claimed(store, "q1"), teach_claimed(store, "q2")
    store.teach(new_fact("q3", "a"))
    released = store.release(second.id)
    assert (released.state, released.failed_attempts) == (FactState.QUEUED, 0)
    assert store.release_claims(3) == 1
    assert store.release_claims(3) == 0
    assert count_by_state(store.connection)[FactState.QUEUED] == 3
    for attempts in (1, 2):
        claimed = store.claim()
        assert claimed is not None
        assert (claimed.id, claimed.failed_attempts) == (first.id, attempts)
        store.release_claims(3)
    fact = store.fact(first.id)
    assert (fact.state, fact.failed_attempts) == (FactState.QUARANTINED, 3)
    assert "the server ended" in fact.reason


CHANGES = {
    FactState.LEARNED: lambda store, fact: record_learned(
        store, new_update(fact, store.model_version()), learning()
    ),
    FactState.KNOWN: lambda store, fact: record_known(store, fact, learning()),
    FactState.RESISTED: lambda store, fact: record_resisted(store, fact, "r", learning()),
    FactState.QUARANTINED: lambda store, fact: store.record_failure(fact, "r", 1),
    FactState.QUEUED: lambda store, fact: store.release(fact),
}


@pytest.mark.parametrize("to", CHANGES)
@pytest.mark.parametrize("state", ["superseded", *CHANGES])
def test_only_a_claimed_fact_changes(store: MemoryStore, state: str, to: FactState) -> None:
    fact = teach_claimed(store)
    if state == "superseded":
        CHANGES[FactState.KNOWN](store, fact.id)
        teach_learned(store, answer="Brontë")
    else:
        CHANGES[FactState(state)](store, fact.id)
    before = (store.fact(fact.id), store.events(), ledger_rows(store.connection))
    with pytest.raises(WrongStateError, match=f"{state} .* {to}"):
        CHANGES[to](store, fact.id)
    assert (store.fact(fact.id), store.events(), ledger_rows(store.connection)) == before
    with pytest.raises(FactNotFoundError):
        CHANGES[to](store, "nobody")


def test_every_state_has_its_transitions() -> None:
    assert set(TRANSITIONS) == set(FactState)
    final = {state for state, following in TRANSITIONS.items() if not following}
    assert final == {FactState.FORGOTTEN}
    # A fact that is being learned is forgotten once its update has ended, one way or the other.
    assert {s for s in FactState if FactState.FORGOTTEN not in TRANSITIONS[s]} == {
        FactState.LEARNING,
        FactState.FORGOTTEN,
    }


def test_a_version_that_the_ledger_lacks(store: MemoryStore) -> None:
    with pytest.raises(FactNotFoundError, match="version 1"):
        store.update(1)


def test_probes_come_newest_first(store: MemoryStore) -> None:
    fact = teach_learned(store)
    for answer in ("one", "two", "three"):
        kind = ProbeKind.FORGETTING
        probe = new_probe(fact.id, answer=answer, kind=kind, log_probability=-math.inf)
        store.record_probes([probe], 1, "cause")
    found = probes_of(store.connection, fact.id, limit=2)
    assert [(probe.answer, probe.cause_fact_id) for probe in found] == [
        ("three", "cause"),
        ("two", "cause"),
    ]
    assert found[0].log_probability == -math.inf


def test_a_probe_may_have_samples(store: MemoryStore) -> None:
    fact = teach_claimed(store)
    sampled = new_probe(fact.id, samples=80, correct_samples=61)
    store.record_probes([new_probe(fact.id), sampled], 0)
    found = probes_of(store.connection, fact.id)
    assert [(p.samples, p.correct_samples) for p in found] == [(80, 61), (0, 0)]
    with pytest.raises(pysqlite3.IntegrityError):
        store.record_probes([new_probe(fact.id, samples=80, correct_samples=81)], 0)


def test_events_can_be_read_by_fact_and_from_any_place(store: MemoryStore) -> None:
    first, second = teach_claimed(store, "q1"), teach_claimed(store, "q2")
    down = store.record_event(EventKind.LEARNER_DOWN, "it died", 0)
    assert down == store.events(after_sequence=4)[0]
    assert down.fact_id == ""
    assert [event.sequence for event in store.events(limit=2)] == [1, 2]
    both = store.events(fact_ids=[second.id, first.id], after_sequence=1)
    assert [event.sequence for event in both] == [2, 3, 4]
    assert store.events(fact_ids=["nobody"]) == []
    with pytest.raises(ValueError, match="passing"):
        store.record_event(EventKind.STEP, "", 0)


def test_a_memory_belongs_to_one_model(store: MemoryStore) -> None:
    meta.bind_model(store.connection, "tiny", "abc")
    meta.bind_model(store.connection, "tiny", "abc")
    meta.bind_model(store.connection, "the same weights, elsewhere", "abc")
    with pytest.raises(OtherModelError, match=r"'tiny' \(weights abc\).*--data"):
        meta.bind_model(store.connection, "tiny", "other")


def test_a_memory_is_tied_to_the_tokenizer_that_it_meets_first(store: MemoryStore):  # M2
    meta.bind_tokenizer(store.connection, "file", "behavior", "1.0")
    meta.bind_tokenizer(store.connection, "file", "behavior", "1.0")
    with pytest.raises(OtherTokenizerError, match="taught with another tokenizer"):
        meta.bind_tokenizer(store.connection, "other file", "behavior", "1.0")
    # Another library writes it differently, and what it does is the same.
    meta.bind_tokenizer(store.connection, "file as 2.0 writes it", "behavior", "2.0")
    meta.bind_tokenizer(store.connection, "file as 2.0 writes it", "behavior", "2.0")
    for changed in (("file", "behavior", "2.0"), ("file as 2.0 writes it", "other", "3.0")):
        with pytest.raises(OtherTokenizerError, match="--accept-drift"):
            meta.bind_tokenizer(store.connection, *changed)
    meta.bind_tokenizer(store.connection, "file as 2.0 writes it", "other", "3.0", accept=True)
    meta.bind_tokenizer(store.connection, "file as 2.0 writes it", "other", "3.0")


def test_a_memory_is_tied_to_the_general_text_that_it_meets_first(store: MemoryStore):  # M1
    assert meta.bind_general_text(store.connection, "first") == "first"
    assert meta.bind_general_text(store.connection, "second") == "first"
    assert meta.bindings(store.connection) == {"general_text": "first"}
