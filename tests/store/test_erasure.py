"""M4: an erase finds every row that has the text, or says where it is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from memory_store import erasure, operations, undo, unsearched
from memory_store.erasure import Key, Page
from memory_store.errors import RequestIdUsedError, WrongStateError
from memory_store.probes import of_fact as probes_of
from memory_store.sought import Sought, folded
from memory_store.store import MemoryStore
from memory_store.unsearched import ERASED
from memory_store.vocabulary import EventKind, Fact, FactState, OperationState
from tests.store.builders import (
    end_of_branch,
    learning,
    new_fact,
    new_probe,
    record_resisted,
    search_erased,
    teach_claimed,
    teach_learned,
)

# Tables whose texts no caller and no model writes.
WITHOUT_TEXTS = {"meta", "state_counts", "updates", "places", "traces"}
QUESTION, ANSWER = "Who found Blipland?", "Telescope"


def resisted(store: MemoryStore, question: str = QUESTION, answer: str = ANSWER) -> Fact:
    """A fact that the weights do not hold, so that it is erased without a learner."""
    fact: Fact = teach_claimed(store, question, answer)
    return record_resisted(store, fact.id, "too hard", learning())


def rolled_back(store: MemoryStore, question: str = QUESTION, answer: str = ANSWER) -> Fact:
    fact: Fact = teach_learned(store, question, answer)
    before = store.model_version() - 1
    operation = undo.request_rollback(store, before)
    undo.begin_operation(store, operation.id)
    undo.finish_rollback(store, operation.id, end_of_branch(before), {})
    assert store.fact(fact.id).state is FactState.FORGOTTEN
    return fact


def erase(store: MemoryStore, fact_id: str) -> list[str]:
    """Erases a fact that is not held, and looks everywhere; what is left."""
    operation = undo.request_forget(store, fact_id, erase=True)
    assert undo.finish_if_not_held(store, operation.id)
    left = search_erased(store)
    undo.close_forget(store, operation.id, message="; ".join(left))
    return left


def whole_file(path: Path) -> str:
    """Every value of every table, and the bytes of the file."""
    with MemoryStore.open(path) as store:
        store.connection.checkpoint()
    return path.read_bytes().decode("utf-8", "replace")


def test_what_was_rolled_back_and_taught_again_is_erased_in_both_rows(
    store: MemoryStore, path: Path
) -> None:
    """M4, as seen: the row of the first teaching kept the text, and nobody was told."""
    first = rolled_back(store)
    second = resisted(store, QUESTION.upper(), "  telescope")
    assert second.id != first.id
    assert erase(store, second.id) == []
    assert [fact.question for fact in store.facts()] == ["", ""]
    operation = operations.newest_of_fact(store, first.id)
    assert operation is not None
    assert (operation.erase, operation.state) == (True, OperationState.DONE)
    assert second.id in operation.message
    # The version that held it cannot be served again: its row of the ledger has no text.
    with pytest.raises(WrongStateError, match=first.id):
        undo.request_rollback(store, 1)
    assert "blipland" not in whole_file(path).lower()
    assert "telescope" not in whole_file(path).lower()


def test_the_text_is_erased_from_the_rows_of_other_facts(store: MemoryStore, path: Path) -> None:
    other = teach_learned(store, "Sky?", "Piano")
    with_related = new_fact(
        "Gem?", "Curtain", correlated_questions=("WHO  found Blipland?", "What gem?")
    )
    related = store.teach(with_related).fact
    fact = resisted_after(store, related.id)
    said = learning(answer_before="the TELESCOPE", answer_after="a telescope.")
    store.record_probes(
        [
            new_probe(other.id, question="Sky?", expected_answer="Piano", answer="TELESCOPE!"),
            new_probe(related.id, question=QUESTION, expected_answer=ANSWER, answer="?"),
        ],
        1,
    )
    store.emit(EventKind.LEARNER_DOWN, store.now(), message=f"asked {QUESTION} it died")
    store.emit(EventKind.LEARNED, store.now(), fact_id=other.id, learning=said)
    assert erase(store, fact.id) == []
    assert store.fact(related.id).correlated_questions == ("What gem?",)
    probes = [(probe.question, probe.answer) for probe in probes_of(store.connection, other.id)]
    assert ("Sky?", ERASED) in probes
    assert [probe.question for probe in probes_of(store.connection, related.id)] == [ERASED]
    messages = [event.message for event in store.events(limit=1000)]
    assert ERASED in messages
    for found in (event.learning for event in store.events(limit=1000)):
        assert found is None or "telescope" not in f"{found.answer_before}{found.answer_after}"
    assert "blipland" not in whole_file(path).lower()
    assert "telescope" not in whole_file(path).lower()


def resisted_after(store: MemoryStore, queued: str) -> Fact:
    """A resisted fact where another is queued before it."""
    claimed = store.claim()
    assert claimed is not None
    assert claimed.id == queued
    record_resisted(store, queued, "no", learning())
    return resisted(store)


def test_what_belongs_to_other_facts_stays_and_is_reported(store: MemoryStore) -> None:
    same = teach_learned(store, QUESTION, ANSWER)
    newer = teach_learned(store, QUESTION, "Somebody else")  # supersedes it
    answers = [teach_learned(store, f"Question {number}?", "A telescope") for number in range(7)]
    fact = resisted(store)
    left = erase(store, fact.id)
    assert any(f"the same fact stays in 1 other fact ({same.id})" in line for line in left)
    assert any(f"its question stays in 1 other fact ({newer.id})" in line for line in left)
    assert any("its text stays in 7 other facts" in line and ", ...)" in line for line in left)
    assert store.fact(same.id).question == QUESTION
    assert store.fact(answers[0].id).answer == "A telescope"
    assert store.fact(fact.id).answer == ""


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Ökonomie", "die \u00d6KONOMIE"),
        ("Ökonomie", "o\u0308konomie"),  # decomposed
        ("Straße", "STRASSE"),
        ("Ελλάς", "ελλάσ"),
        ("ПЕРСИК", "персик"),
    ],
)
def test_case_is_folded_in_every_script(store: MemoryStore, answer: str, said: str) -> None:
    """Low: only ASCII was folded."""
    other = teach_learned(store, "Sky?", "Piano")
    fact = resisted(store, "Gem?", answer)
    store.record_probes([new_probe(other.id, question="Sky?", answer=said)], 1)
    erase(store, fact.id)
    assert probes_of(store.connection, other.id)[0].answer == ERASED


def test_short_answers_are_looked_for_alone() -> None:
    sought = Sought("f", "Ab?", "no", ())
    assert sought.is_said_in(" NO ")
    assert not sought.is_said_in("nothing")
    assert not sought.is_in("no, nothing")
    long = replace(sought, answer="cat")
    assert long.is_said_in("concatenated")
    assert long.is_in("the CAT sat")
    assert not long.is_in("concatenated")
    assert folded("A  B\u0301") == folded("a b\u0301")


def test_a_search_that_was_cut_off_knows_what_it_looked_for(store: MemoryStore, path: Path) -> None:
    fact = resisted(store)
    operation = undo.request_forget(store, fact.id, erase=True)
    undo.finish_if_not_held(store, operation.id)
    with MemoryStore.open(path) as again:
        [sought] = erasure.pending(again)
        assert (sought.question, sought.answer) == (QUESTION, ANSWER)
        erasure.close(again, sought)
        assert erasure.pending(again) == []
    assert "Blipland" not in whole_file(path)


def test_a_row_that_was_changed_since_the_look_is_not_overwritten(store: MemoryStore) -> None:
    other = teach_learned(store, "Sky?", "Piano")
    store.record_probes([new_probe(other.id, question="Sky?", answer="Telescope")], 1)
    sought = Sought("f", QUESTION, ANSWER, ())
    page = erasure.look(store, [sought], "probes", None)
    store.connection.execute("UPDATE probes SET answer = 'changed'")
    erasure.clean(store, page.changes)
    assert {probe.answer for probe in probes_of(store.connection, other.id)} == {"changed"}


def test_many_texts_are_looked_for_in_one_pass(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    erased = [resisted(store, f"Who saw {n}?", f"Blip-{n}") for n in range(40)]
    other = store.teach(
        new_fact("Sky?", "Piano", correlated_questions=("Who saw 1?", "Sea?", "Who saw 2?"))
    ).fact
    store.teach(new_fact("Who saw 2?", "Nobody"))
    said = "one and Blip-1, then BLIP-2 too"
    store.record_probes([new_probe(other.id, question="Sky?", answer=said)], 0)
    store.emit(EventKind.RETRIED, store.now(), fact_id=other.id, message="it said Blip-1")
    for fact in erased:
        erasure.erase(store, fact)
    looks: list[str] = []
    look = erasure.look

    def counted(
        store: MemoryStore, sought: Sequence[Sought], table: str, after: Key | None
    ) -> Page:
        looks.append(table)
        return look(store, sought, table, after)

    monkeypatch.setattr(erasure, "look", counted)
    left = search_erased(store)
    assert sorted(looks) == sorted(erasure.TABLES)
    assert erasure.pending(store) == []
    assert store.fact(other.id).correlated_questions == ("Sea?",)
    assert [probe.answer for probe in probes_of(store.connection, other.id)] == [ERASED]
    assert "Blip-1" not in str(store.events(limit=10**6))
    assert len(left) == 1  # of the second one, whose question another fact has
    assert left[0].startswith("its question stays in 1 other fact")


def test_rows_stored_after_a_search_are_noted_while_the_weights_may_hold_the_fact(
    store: MemoryStore,
) -> None:
    held, other = teach_learned(store, "held?"), resisted(store)
    store.record_probes([new_probe(held.id)] * 3, 1)
    for fact in (held, other):
        undo.request_forget(store, fact.id, erase=True)
    search_erased(store)
    assert unsearched.of_fact(store, other.id) is None
    noted = unsearched.of_fact(store, held.id)
    assert noted is not None
    assert (noted.probe, noted.event) == (3, store.last_event_sequence())
    store.record_probes([new_probe(other.id)], 1)
    unsearched.note(store, held.id, unsearched.rows_from_now(store))
    assert unsearched.of_fact(store, held.id) == noted  # not from a later search on
    unsearched.drop(store, held.id)
    assert unsearched.of_fact(store, held.id) is None


def test_large_tables_are_read_a_page_at_a_time(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "PAGE_ROWS", 3)
    other = teach_learned(store, "Sky?", "Piano")
    probes = [new_probe(other.id, question="Sky?", answer=f"telescope {n}") for n in range(10)]
    store.record_probes(probes, 1)
    fact = resisted(store)
    erase(store, fact.id)
    assert {probe.answer for probe in probes_of(store.connection, other.id)} == {ERASED}


def test_every_table_is_searched_or_has_no_texts(store: MemoryStore) -> None:
    """A new table must be added to one of the two."""
    tables = {
        row["name"]
        for row in store.connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            " AND name NOT LIKE '\\_%' ESCAPE '\\'"
        )
    }
    assert tables == set(erasure.TABLES) | WITHOUT_TEXTS


def test_no_digest_of_a_request_confirms_a_guess_at_the_text(store: MemoryStore) -> None:
    """Of the fact's own requests, and of those of the rows that are erased with it."""
    rolled_back(store)
    for request in ("r1", "r2"):
        store.teach(new_fact(QUESTION, ANSWER, request_id=request))
    kept = store.teach(new_fact("Sky?", "Piano", request_id="r3")).fact
    fact = store.claim()
    assert fact is not None
    record_resisted(store, fact.id, "no", learning())
    erase(store, fact.id)
    rows = store.connection.execute("SELECT request_id, payload_hash, fact_id FROM requests")
    erased = {row["request_id"]: row["payload_hash"] == "erased" for row in rows}
    assert erased == {"r1": True, "r2": True, "r3": False}
    assert store.fact(kept.id).question == "Sky?"
    with pytest.raises(RequestIdUsedError):
        store.teach(new_fact(QUESTION, ANSWER, request_id="r1"))
