"""When a taught fact is new, when it is one that the memory holds, and when it is refused."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memory_store.connection import Connection, SqlValue
from memory_store.errors import (
    FactExistsError,
    FactNotFoundError,
    MemoryStoreError,
    QueueFullError,
    RequestIdUsedError,
)
from memory_store.facts import count_by_state
from memory_store.store import MemoryStore
from memory_store.vocabulary import Accepted, EventKind, FactState, NewFact, Policy
from tests.store import integrity
from tests.store.builders import (
    ids,
    learning,
    new_fact,
    record_known,
    record_resisted,
    teach_claimed,
    teach_learned,
)

POLICY = Policy(name="fixed", learning_rate=1e-4, max_steps=3)


def test_a_fact_is_stored_exactly_as_given(store: MemoryStore) -> None:
    new = new_fact(
        "  Who\twrote É\x00mma? ",
        " Jane  Austen\n",
        correlated_questions=("Whose is Emma?", ""),
        policy=POLICY,
        fact_id="emma",
    )
    accepted = store.teach(new)
    fact = store.fact("emma")
    assert accepted.created
    assert accepted.fact == fact
    assert (fact.position, fact.state) == (1, FactState.QUEUED)
    assert (fact.question, fact.answer) == (new.question, new.answer)
    assert (fact.correlated_questions, fact.policy) == (new.correlated_questions, POLICY)
    assert fact.accepted_at == fact.updated_at


def test_an_id_is_made_unless_chosen(store: MemoryStore) -> None:
    made = store.teach(new_fact()).fact.id
    assert made[0] == "f"
    assert len(made) == 17
    with pytest.raises(FactNotFoundError, match="nobody"):
        store.fact("nobody")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("who WROTE  emma?", "Jane Austen"),
        (" Who wrote\nEmma?", "Jane\tAusten "),
    ],
)
def test_case_and_spacing_of_a_question_do_not_make_a_new_fact(
    store: MemoryStore, question: str, answer: str
) -> None:
    first = store.teach(new_fact())
    again = store.teach(new_fact(question, answer, policy=POLICY))
    assert not again.created
    assert again.fact == first.fact  # its policy included
    assert count_by_state(store.connection)[FactState.QUEUED] == 1


def test_unicode_composition_does_not_make_a_new_fact(store: MemoryStore) -> None:
    composed, decomposed = "Où est le CAFÉ?", unicodedata.normalize("NFD", "où est le café?")
    store.teach(new_fact(composed, "Zoë"))
    assert not store.teach(new_fact(decomposed, unicodedata.normalize("NFD", "Zoë"))).created


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Who wrote Emma", "Jane Austen"),  # punctuation counts
        ("Who wrote Emma?", "jane austen"),  # so does an answer's case
        ("Who wrote Persuasion?", "Jane Austen"),
    ],
)
def test_other_questions_and_answers_are_new_facts(
    store: MemoryStore, question: str, answer: str
) -> None:
    store.teach(new_fact())
    assert store.teach(new_fact(question, answer)).created


def test_only_the_newest_answer_counts(store: MemoryStore) -> None:
    first = store.teach(new_fact(answer="Austen")).fact
    store.teach(new_fact(answer="Brontë"))
    back = store.teach(new_fact(answer="Austen"))
    assert back.created
    assert back.fact.id != first.id


def test_a_fact_that_was_given_up_can_be_taught_again(store: MemoryStore) -> None:
    first = teach_claimed(store)
    record_resisted(store, first.id, "step limit", learning())
    again = store.teach(new_fact())
    assert again.created
    assert again.fact.id != first.id


def test_a_superseded_answer_can_be_taught_again(store: MemoryStore) -> None:
    teach_learned(store, answer="Austen")
    teach_learned(store, answer="Brontë")
    assert store.teach(new_fact(answer="Austen")).created
    assert not store.teach(new_fact(answer="Austen")).created


def test_a_request_sent_again_gets_its_first_answer_and_teaches_nothing(store: MemoryStore) -> None:
    new = new_fact(request_id="r1", policy=POLICY, correlated_questions=("x",))
    store.teach(new_fact("Who wrote Villette?", "Brontë"))
    first = store.teach(new)
    store.claim()
    store.claim()
    before = store.events()
    again = store.teach(new)
    assert (first.created, first.event_sequence, first.repeated) == (True, 1, False)
    assert (again.created, again.event_sequence, again.repeated) == (True, 1, True)
    assert store.events() == before
    assert again.fact.id == first.fact.id
    assert again.fact.state is FactState.LEARNING


def test_a_request_finds_its_fact_even_after_it_was_superseded(store: MemoryStore) -> None:
    store.teach(new_fact(answer="Austen", request_id="r1"))
    fact = store.claim()
    assert fact is not None
    record_known(store, fact.id, learning())
    teach_learned(store, answer="Brontë")
    again = store.teach(new_fact(answer="Austen", request_id="r1"))
    assert again.repeated
    assert again.fact.state is FactState.SUPERSEDED


@pytest.mark.parametrize(
    "other",
    [
        {"question": "who wrote emma?"},  # the same fact, but not the same request
        {"answer": "Brontë"},
        {"correlated_questions": ("x",)},
        {"policy": POLICY},
        {"fact_id": "emma"},
    ],
)
def test_a_request_id_with_other_content_is_refused(
    store: MemoryStore, other: dict[str, Any]
) -> None:
    store.teach(new_fact(request_id="r1"))
    before = store.events()
    with pytest.raises(RequestIdUsedError, match="r1"):
        store.teach(new_fact(**{"request_id": "r1"} | other))
    assert store.events() == before


def test_the_request_of_a_fact_held_already_is_remembered(store: MemoryStore) -> None:
    first = store.teach(new_fact())
    store.teach(new_fact(request_id="r1"))
    with pytest.raises(RequestIdUsedError):
        store.teach(new_fact(answer="Brontë", request_id="r1"))
    again = store.teach(new_fact(request_id="r1"))
    assert again.fact == first.fact
    assert (again.created, again.repeated) == (False, True)


def test_a_fact_id_is_given_once(store: MemoryStore) -> None:
    store.teach(new_fact(fact_id="emma"))
    assert not store.teach(new_fact(fact_id="emma")).created  # the same fact
    with pytest.raises(FactExistsError, match="emma"):
        store.teach(new_fact("Who wrote Villette?", "Brontë", fact_id="emma", request_id="r"))
    # The refused request left no trace: its id is free.
    assert store.teach(new_fact("Who wrote Villette?", "Brontë", request_id="r")).created


def test_an_id_of_another_fact_is_refused_even_if_the_fact_is_held(store: MemoryStore) -> None:
    store.teach(new_fact(fact_id="emma"))
    store.teach(new_fact("Who wrote Villette?", "Brontë", fact_id="villette"))
    with pytest.raises(FactExistsError, match="villette"):
        store.teach(new_fact(fact_id="villette"))
    held = store.teach(new_fact(fact_id="free-id"))
    assert not held.created
    assert held.fact.id == "emma"


def test_watching_from_the_answer_shows_the_acceptance(store: MemoryStore) -> None:
    first = store.teach(new_fact())
    assert first.event_sequence == 0
    second = store.teach(new_fact("Who wrote Villette?", "Brontë"))
    seen = store.events(after_sequence=second.event_sequence)
    assert [(event.kind, event.fact_id) for event in seen] == [(EventKind.ACCEPTED, second.fact.id)]
    held = store.teach(new_fact())
    assert held.event_sequence == store.last_event_sequence() == 2


def test_facts_are_listed_in_order_of_acceptance_by_state(store: MemoryStore) -> None:
    for number in range(6):
        store.teach(new_fact(f"q{number}", "a", fact_id=f"fact{number}"))
    for _ in range(2):
        claimed = store.claim()
        assert claimed is not None
        record_known(store, claimed.id, learning())
    store.claim()
    assert ids(store.facts()) == [f"fact{number}" for number in range(6)]
    assert ids(store.facts(after_position=1, limit=3)) == ["fact1", "fact2", "fact3"]
    known, queued = FactState.KNOWN, FactState.QUEUED
    assert ids(store.facts(states=[known])) == ["fact0", "fact1"]
    assert ids(store.facts(states=[queued, known])) == ["fact0", "fact1", "fact3", "fact4", "fact5"]
    assert ids(store.facts(states=[queued, known, known], after_position=2, limit=2)) == [
        "fact3",
        "fact4",
    ]
    assert store.facts(states=[FactState.FORGOTTEN]) == []
    expected = {known: 2, queued: 3, FactState.LEARNING: 1}
    assert count_by_state(store.connection) == {
        state: expected.get(state, 0) for state in FactState
    }


def test_many_facts_get_the_answers_that_they_would_get_one_by_one(
    store: MemoryStore, tmp_path: Path
) -> None:
    """Repetitions inside the batch included; each refusal leaves no trace."""
    store.teach(new_fact("held?", "a", fact_id="held", request_id="r0"))
    batch = [
        new_fact("q1", "a", request_id="r1"),
        new_fact("Q1 ", "a", request_id="r2"),  # the same fact
        new_fact("q1", "a", request_id="r1"),  # the same request
        new_fact("q1", "b", request_id="r1"),  # its id, with other content
        new_fact("q1", "b", fact_id="mine"),  # a newer answer
        new_fact("q1", "a"),  # and the older one once more: new again
        new_fact("q2", "a", fact_id="mine"),  # the id is taken
        new_fact("held?", "a", request_id="r3"),
        new_fact("held?", "a", fact_id="held", request_id="r0"),
        new_fact("q3", "é\x00\u2028", correlated_questions=("x", ""), policy=POLICY),
    ]
    together = store.teach_many(batch)
    with MemoryStore.open(tmp_path / "one-by-one.db", now=store.now) as other:
        other.teach(new_fact("held?", "a", fact_id="held", request_id="r0"))
        singly: list[Accepted | MemoryStoreError] = []
        for new in batch:
            try:
                singly.append(other.teach(new))
            except MemoryStoreError as error:
                singly.append(error)

        def told(answers: list[Accepted | MemoryStoreError]) -> list[object]:
            """All but the ids that are made up, of which only who shares one is told."""
            met: list[str] = []
            for answer in answers:
                if isinstance(answer, Accepted) and answer.fact.id not in met:
                    met.append(answer.fact.id)
            return [
                (answer.created, answer.event_sequence, answer.repeated, met.index(answer.fact.id))
                if isinstance(answer, Accepted)
                else type(answer)
                for answer in answers
            ]

        assert told(together) == told(singly)
        assert [type(a).__name__ for a in together].count("Accepted") == 8
        for which in (store, other):
            assert integrity.problems(which.connection) == []
        at = store.now()
        assert [replace(f, id="", accepted_at=at, updated_at=at) for f in store.facts()] == [
            replace(f, id="", accepted_at=at, updated_at=at) for f in other.facts()
        ]
        assert [(e.sequence, e.kind) for e in store.events()] == [
            (e.sequence, e.kind) for e in other.events()
        ]
    assert [a.fact for a in together if isinstance(a, Accepted) and a.created] == [
        store.fact(a.fact.id) for a in together if isinstance(a, Accepted) and a.created
    ]


def test_the_statements_of_a_batch_do_not_grow_with_it(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []
    execute = Connection.execute

    def counting(connection: Connection, sql: str, parameters: Sequence[SqlValue] = ()):
        statements.append(sql)
        return execute(connection, sql, parameters)

    monkeypatch.setattr(Connection, "execute", counting)
    counts = []
    for size in (1, 500):
        statements.clear()
        store.teach_many([new_fact(f"{size} {n}", request_id=f"{size}-{n}") for n in range(size)])
        counts.append(len(statements))
    assert counts[0] == counts[1]


def test_a_full_queue_refuses_new_facts_only(store: MemoryStore) -> None:
    first = store.teach(new_fact("q1", request_id="r1"), max_queued=2)
    answers = store.teach_many([new_fact("q2"), new_fact("q3", request_id="r3")], max_queued=2)
    assert isinstance(answers[0], Accepted)
    assert isinstance(answers[1], QueueFullError)
    with pytest.raises(QueueFullError, match="2 facts wait"):
        store.teach(new_fact("q3"), max_queued=2)
    # What is held, and what was answered, is answered.
    assert store.teach(new_fact("Q1"), max_queued=2).fact.id == first.fact.id
    assert store.teach(new_fact("q1", request_id="r1"), max_queued=2).repeated
    assert store.claim() is not None  # one is being learned: it waits no longer
    assert store.teach(new_fact("q3", request_id="r3"), max_queued=2).created


def test_a_repeated_request_is_told_again_which_fact_it_replaced(store: MemoryStore) -> None:
    first = store.teach(NewFact(question="Sky?", answer="Piano"))
    newer = NewFact(question="sky?", answer="Violin", request_id="r1")
    assert store.teach(newer).replaces == first.fact.id
    again = store.teach(newer)
    assert (again.repeated, again.replaces) == (True, first.fact.id)
