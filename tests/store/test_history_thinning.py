"""Thinning (M15): what the rule keeps is kept, exactly the rest goes, and undoing still works."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_store import erasure, provenance, reviews, rollback_states, undo
from memory_store import history_thinning as thinning
from memory_store.compaction import space
from memory_store.errors import OperationEndedError
from memory_store.history_thinning import ENDINGS, KeptProbe, Removed, Thinning, kept, thinned_up_to
from memory_store.in_memory import open_in_memory
from memory_store.lines import line_of
from memory_store.probes import COLUMNS as PROBE_COLUMNS
from memory_store.probes import of_fact as probes_of
from memory_store.store import MemoryStore
from memory_store.vocabulary import (
    Event,
    EventKind,
    Fact,
    FactState,
    ProbeKind,
    RatePoint,
    ReviewOutcome,
)
from tests.store.builders import (
    end_of_branch,
    erase_everywhere,
    learning,
    new_probe,
    new_review,
    new_update,
    record_known,
    record_learned,
    record_relearned,
    record_resisted,
    teach_claimed,
    teach_learned,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CURVE = (RatePoint(1e-5, 0.25), RatePoint(1e-4, 0.75))
NEVER_TOUCHED = ("facts", "updates", "requests", "reviews", "operations", "places", "state_counts")
PROBES = st.lists(
    st.tuples(
        st.sampled_from(["retention", "forgetting", "transfer"]),
        st.sampled_from(["", "other"]),
        st.sampled_from([0.5, 0.55, 0.62, 0.7]),
        st.integers(0, 40),
    ),
    max_size=30,
)


def thinned(store: MemoryStore, keep_events: int = 1000, *, fully: bool = True) -> Removed:
    thinning, removed = Thinning(keep_events, fully=fully), Removed()
    while (piece := thinning.piece(store)) is not None:
        removed += piece
    return removed


def rows(store: MemoryStore, table: str) -> list[tuple[object, ...]]:
    return [tuple(row) for row in store.connection.execute(f"SELECT * FROM {table}")]


def stays(probe: KeptProbe, others: Sequence[KeptProbe]) -> bool:
    """The rule once more, for one probe at a time."""
    alike = [o for o in others if (o.kind, o.question) == (probe.kind, probe.question)]
    asked_alike = [
        other
        for other in others
        if other.question == probe.question
        and (other.kind == "transfer") == (probe.kind == "transfer")
        and other.age.bit_length() == probe.age.bit_length()
    ]
    own = [other for other in others if other.kind != "transfer"]
    moved = [
        pair
        for pair in itertools.pairwise(own)
        if abs(pair[0].probability - pair[1].probability) >= 0.1
    ]
    return probe in (alike[-1], asked_alike[0]) or any(probe in pair for pair in moved)


@given(PROBES)
def test_the_rule_keeps_the_newest_some_of_each_age_and_what_moved(
    asked: list[tuple[str, str, float, int]],
) -> None:
    probes = [
        KeptProbe(id=number, kind=kind, question=question, probability=probability, age=age)
        for number, (kind, question, probability, age) in enumerate(asked)
    ]
    keeps = kept(probes)
    assert keeps == {probe.id for probe in probes if stays(probe, probes)}
    # A second time nothing more goes.
    assert kept([probe for probe in probes if probe.id in keeps]) == keeps


@given(st.integers(1, 3), PROBES, st.integers(1, 12))
def test_exactly_what_the_rule_does_not_keep_is_removed(
    facts: int, asked: list[tuple[str, str, float, int]], keep_events: int
) -> None:
    with open_in_memory() as store:
        taught = [teach_learned(store, f"question {number}") for number in range(facts)]
        for number, (kind, question, probability, _) in enumerate(asked):
            fact = taught[number % facts]
            probe = new_probe(
                fact.id,
                kind=ProbeKind(kind),
                question=question or fact.question,
                log_probability=probability - 1,
            )
            store.record_probes([probe], 1 + number % facts)
        before = {fact.id: probes_of(store.connection, fact.id, 1000) for fact in taught}
        untouched = {table: rows(store, table) for table in NEVER_TOUCHED}
        events = store.events()
        removed = thinned(store, keep_events)

        for fact in taught:
            probes = [
                KeptProbe(
                    id=number,
                    kind=probe.kind.value,
                    question="" if probe.question == fact.question else probe.question,
                    probability=2.718281828459045**probe.log_probability,
                    age=facts - probe.model_version,
                )
                for number, probe in enumerate(reversed(before[fact.id]))
            ]
            keeps = kept(probes)
            left = [p for n, p in enumerate(reversed(before[fact.id])) if n in keeps]
            assert probes_of(store.connection, fact.id, 1000) == left[::-1]
        left_probes = sum(len(probes_of(store.connection, fact.id, 1000)) for fact in taught)
        assert removed.probes == sum(map(len, before.values())) - left_probes
        up_to = thinned_up_to(store)
        assert up_to in (0, len(events) - keep_events)
        assert store.events() == [e for e in events if e.sequence > up_to or e.kind in ENDINGS]
        assert {table: rows(store, table) for table in NEVER_TOUCHED} == untouched
        assert thinned(store, keep_events) == Removed()


def test_probes_that_stay_are_moved_with_all_their_columns(store: MemoryStore) -> None:
    columns = store.connection.execute("SELECT name FROM pragma_table_info('probes')")
    assert {row["name"] for row in columns} == {"id", *PROBE_COLUMNS}


def test_what_stays_fills_pages(store: MemoryStore) -> None:
    """A memory whose probes are thinned is about as small as one that never had them."""
    facts = [teach_learned(store, f"question {number}") for number in range(40)]
    answer = "x" * 200
    for number in range(40 * 48):
        # Some move, and stay with their neighbors: without more, pages would be half empty.
        moved = -1.0 if number // 40 % 7 == 0 else -0.1
        probe = new_probe(
            facts[number % 40].id, log_probability=moved, correct=False, answer=answer
        )
        store.record_probes([probe], 1)
    assert thinned(store).probes > 0
    before = space(store)
    store.connection.execute("VACUUM")
    assert (before.total - before.free) / space(store).total < 1.07


def test_provenance_still_names_what_moved_an_answer(store: MemoryStore) -> None:
    fact = teach_learned(store, "moved?")
    for number, log_probability in enumerate([-0.1, -0.1, -0.1, -2.0, -2.0, -2.0, -0.5, -0.5]):
        other = teach_claimed(store, f"other {number}")
        record_learned(
            store,
            new_update(other.id, store.model_version()),
            learning(),
            [new_probe(fact.id, kind=ProbeKind.FORGETTING, log_probability=log_probability)],
        )
    influences = provenance.influences_on(store, "moved?")[1]
    assert thinned(store).probes > 0
    assert provenance.influences_on(store, "moved?")[1][:2] == influences[:2]


def test_a_pass_waits_until_enough_probes_are_new(store: MemoryStore) -> None:
    fact = teach_learned(store)
    for _ in range(20):
        store.record_probes([new_probe(fact.id)], 1)
    assert thinned(store, fully=False) == Removed()
    store.record_probes([new_probe(fact.id)] * 1000, 1)
    assert thinned(store, fully=False).probes == 1018
    assert len(probes_of(store.connection, fact.id)) == 2
    assert thinned(store, fully=False) == Removed()


def test_no_piece_looks_at_many_probes(store: MemoryStore) -> None:
    """However many a fact has: the writer is held for some milliseconds."""
    fact = teach_learned(store)
    store.record_probes([new_probe(fact.id)] * 3500, 1)
    thinning = Thinning(1000, fully=True)
    removed = []
    while (piece := thinning.piece(store)) is not None:
        removed.append(piece.probes)
    assert max(removed) < 1000
    assert sum(removed) == 3498


# -- What undoing needs ------------------------------------------------------------------------


def history(store: MemoryStore) -> Iterator[Fact]:
    """Facts of every fate, some of them taught again, over more events than are kept."""
    found = learning(curve=CURVE, probability_after=0.91)
    for number in range(4):
        fact = teach_claimed(store, f"question {number}")
        record_learned(store, new_update(fact.id, store.model_version()), found)
        yield fact
    known = teach_claimed(store, "known?")
    record_known(store, known.id, replace(found, learning_rates=()))
    yield known
    resisted = teach_claimed(store, "resisted?")
    record_resisted(store, resisted.id, "too hard", found)
    yield resisted
    failing = teach_claimed(store, "failing?")
    store.record_failure(failing.id, "the loss is not a number", 1)
    yield failing


def retaught(store: MemoryStore, fact: Fact) -> None:
    review = new_review(
        fact.id,
        store.model_version(),
        ReviewOutcome.RETAUGHT,
        learning=learning(probability_after=0.95, curve=CURVE),
    )
    reviews.record_review(store, review)


@pytest.mark.parametrize("to_version", [1, 2, 4, 5])
def test_a_rollback_comes_to_the_same_after_thinning(to_version: int) -> None:
    def rolled_back(*, thin: bool) -> tuple[list[Fact], list[tuple[object, ...]]]:
        with open_in_memory() as store:
            facts = list(history(store))
            retaught(store, facts[0])
            retaught(store, facts[4])
            if thin:
                assert thinned(store, 1).events > 0
            operation = undo.request_rollback(store, to_version)
            undo.begin_operation(store, operation.id)
            undo.finish_rollback(store, operation.id, end_of_branch(to_version), {})
            found = [
                replace(
                    fact,
                    id="",
                    superseded_by="",
                    accepted_at=NOON,
                    updated_at=NOON,
                    learning=fact.learning and replace(fact.learning, curve=()),
                )
                for fact in store.facts()
            ]
            due = store.connection.execute("SELECT times_held, held_since, due_depth FROM facts")
            return found, [tuple(row) for row in due]

    assert rolled_back(thin=True) == rolled_back(thin=False)


def test_an_event_keeps_its_findings_when_the_fact_gets_others(store: MemoryStore) -> None:
    first, *_ = history(store)
    [before] = [e for e in store.events() if e.fact_id == first.id and e.kind is EventKind.LEARNED]
    [row] = rows_of(store, before)
    assert row["learning"] == "null"  # as the fact says
    retaught(store, first)
    assert store.events(after_sequence=before.sequence - 1, limit=1) == [before]
    newest = store.events()[-1]
    assert newest.learning == store.fact(first.id).learning != before.learning


def test_an_erase_does_not_bring_the_text_back_by_reference(store: MemoryStore) -> None:
    fact = teach_claimed(store, "What is it?", "Zanzibar")
    found = learning(answer_after="Zanzibar", curve=CURVE)
    record_learned(store, new_update(fact.id, 0), found)
    other = teach_claimed(store, "And what else?", "Curtain")
    record_learned(store, new_update(other.id, 1), replace(found, answer_before="Zanzibar it is"))
    undo.request_forget(store, fact.id, erase=True)
    erase_everywhere(store, store.fact(fact.id))
    assert all(
        "Zanzibar" not in str(row) for table in ("facts", "events") for row in rows(store, table)
    )
    assert [event.learning and event.learning.answer_before for event in store.events()][-1] == ""


def test_nothing_is_moved_while_an_erased_text_is_looked_for(store: MemoryStore) -> None:
    """A row that is found, and then moved before it is cleaned, would keep the text."""
    fact = teach_learned(store, "What is it?", "Zanzibar")
    other = teach_learned(store, "And what else?", "Curtain")
    for answer in ("Curtain", "Curtain", "Zanzibar it is"):
        store.record_probes([new_probe(other.id, answer=answer, correct=False)], 2)
    erasure.erase(store, store.fact(fact.id))
    [sought] = erasure.pending(store)
    page = erasure.look(store, [sought], "probes", None)
    assert thinned(store) == Removed()
    erasure.clean(store, page.changes)
    assert "Zanzibar" not in str(rows(store, "probes"))
    erasure.close(store, sought)
    assert thinned(store).probes == 1


def test_what_a_failed_operation_learned_goes_and_of_others_the_curves(
    store: MemoryStore,
) -> None:
    facts = [teach_learned(store, f"q{number}?") for number in range(4)]
    for number, fails in enumerate((True, False)):
        operation = undo.request_forget(store, facts[number].id)
        branch = undo.begin_operation(store, operation.id).branch_version or 0
        again = facts[3]
        record_relearned(
            *(store, operation.id, again, FactState.LEARNED, ""),
            learning=learning(curve=CURVE),
            update=new_update(again.id, branch),
        )
        assert thinned(store) == Removed()  # it is open
        if fails:
            undo.fail_operation(store, operation.id, "no luck")
        else:
            end = end_of_branch(
                store.connection.execute("SELECT max(model_version) AS v FROM updates")[0]["v"],
                facts[number].id,
            )
            undo.finish_forget(store, operation.id, end, {}, [])
            undo.close_forget(store, operation.id)
        assert thinned(store) == Removed(curves=1)
    [left] = store.connection.execute("SELECT learning FROM relearned")
    assert '"curve"' not in left["learning"]
    assert '"answer_after"' in left["learning"]


def test_what_was_written_down_for_a_cancelled_rollback_goes(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thinning, "ROWS", 2)
    for number in range(5):
        teach_learned(store, f"q{number}?")
    operation = undo.begin_operation(store, undo.request_rollback(store, 1).id)
    line = line_of(store.connection, 1)
    assert rollback_states.write_down(store, operation, line)
    undo.cancel_operation(store, operation.id)
    with pytest.raises(OperationEndedError):  # nothing is written down from then on
        rollback_states.write_down(store, operation, line)
    assert len(store.connection.execute("SELECT 1 FROM restated")) == 5
    thinned(store)
    assert store.connection.execute("SELECT 1 FROM restated") == []


def rows_of(store: MemoryStore, event: Event) -> list[dict[str, object]]:
    found = store.connection.execute("SELECT * FROM events WHERE sequence = ?", [event.sequence])
    return [dict(row) for row in found]
