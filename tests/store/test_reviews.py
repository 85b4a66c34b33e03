"""Reviews: when they are due, what they leave behind, and their place in the history."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from memory_store import branch_growth, operations, reviews, schedule, undo
from memory_store.errors import LedgerConflictError, WrongStateError
from memory_store.probes import of_fact as probes_of
from memory_store.store import MemoryStore
from memory_store.vocabulary import (
    EventKind,
    Fact,
    FactState,
    LedgerKind,
    Operation,
    ProbeKind,
    Retention,
    ReviewOutcome,
    Update,
)
from tests.store import integrity
from tests.store.builders import (
    Clock,
    end_of_branch,
    learning,
    ledger_rows,
    new_fact,
    new_probe,
    new_review,
    new_update,
    record_known,
    record_learned,
    record_relearned,
    record_resisted,
    reviews_to_repeat,
    teach_claimed,
    teach_learned,
)

HELD, RETAUGHT = ReviewOutcome.HELD, ReviewOutcome.RETAUGHT
FIRST = schedule.FIRST_UPDATES


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[MemoryStore]:
    with MemoryStore.open(tmp_path / "memory.db", now=clock) as opened:
        yield opened
        assert integrity.problems(opened.connection) == []


def review(store: MemoryStore, fact: Fact, outcome: ReviewOutcome = HELD) -> Update | None:
    return reviews.record_review(store, new_review(fact.id, store.model_version(), outcome))


def due(store: MemoryStore) -> str | None:
    found = reviews.next_due(store)
    return found.question if found else None


def teach(store: MemoryStore, count: int, name: str = "other") -> None:
    for number in range(count):
        teach_learned(store, f"{name} {number}?")


# --- When a review is due -------------------------------------------------------------------------


def test_the_interval_doubles_up_to_a_limit() -> None:
    found = [schedule.interval(times) for times in range(13)]
    assert [updates for updates, _ in found[:4]] == [8, 16, 32, 64]
    assert [time for _, time in found[:3]] == [timedelta(minutes=m) for m in (10, 20, 40)]
    assert {updates for updates, _ in found[7:]} == {1024}
    assert {time for _, time in found[10:]} == {timedelta(days=7)}
    assert found[9][1] < timedelta(days=7)


def test_a_fact_is_due_after_so_many_updates(store: MemoryStore) -> None:
    teach_learned(store, "first?")
    teach(store, FIRST - 1)
    assert due(store) is None
    teach(store, 1, "last")
    assert due(store) == "first?"


def test_a_fact_is_due_after_so_much_time(store: MemoryStore, clock: Clock) -> None:
    teach_learned(store, "first?")
    clock.time += schedule.FIRST_TIME - timedelta(seconds=30)
    assert due(store) is None
    clock.time += timedelta(seconds=30)
    assert due(store) == "first?"


def test_a_clock_set_back_by_years_stops_no_reviews(store: MemoryStore, clock: Clock) -> None:
    """M6: what was to be reviewed in ten minutes was due in years."""
    fact = teach_learned(store, "first?")
    clock.time -= timedelta(days=1000)
    assert due(store) == "first?"
    review(store, fact)
    assert due(store) is None  # from now on by the clock as it is
    clock.time += timedelta(minutes=30)
    assert due(store) == "first?"


def test_what_has_been_due_longest_comes_first(store: MemoryStore, clock: Clock) -> None:
    facts = [teach_learned(store, name) for name in ("a", "b", "c")]
    clock.time += timedelta(hours=1)
    order = []
    while (name := due(store)) is not None:
        order.append(name)
        review(store, facts["abc".index(name)])
    assert order == ["a", "b", "c"]
    # By updates before by time: weights that have changed lose more than weights that wait.
    late = teach_learned(store, "d")
    teach(store, FIRST)
    clock.time += timedelta(hours=2)
    assert due(store) == "d"
    review(store, late)
    assert due(store) == "other 0?"  # by time: the others were reviewed once, and wait longer


def test_each_review_that_finds_it_held_doubles_the_interval(
    store: MemoryStore, clock: Clock
) -> None:
    fact = teach_learned(store, "first?")
    wait = schedule.FIRST_TIME
    for _ in range(12):
        review(store, fact)
        wait = min(2 * wait, schedule.LONGEST_TIME)
        clock.time += wait - timedelta(seconds=30)
        assert due(store) is None
        clock.time += timedelta(seconds=30)
        assert due(store) == "first?"
    assert wait == schedule.LONGEST_TIME


@pytest.mark.parametrize(
    "outcome", [RETAUGHT, ReviewOutcome.RESISTED, ReviewOutcome.FAILED], ids=str
)
def test_what_had_fallen_is_due_at_the_first_interval_again(
    store: MemoryStore, clock: Clock, outcome: ReviewOutcome
) -> None:
    fact = teach_learned(store, "first?")
    for _ in range(5):
        review(store, fact)
    review(store, fact, outcome)
    assert store.fact(fact.id).state is FactState.LEARNED
    assert due(store) is None
    clock.time += schedule.FIRST_TIME
    assert due(store) == "first?"


def test_only_what_is_held_is_reviewed(store: MemoryStore, clock: Clock) -> None:
    known = record_known(store, teach_claimed(store, "known?").id, learning())
    resisted = teach_claimed(store, "resisted?")
    record_resisted(store, resisted.id, "too hard", learning())
    older = teach_learned(store, "Sky?", "Violin")
    newer = teach_learned(store, "Sky?", "Piano")
    waiting = store.teach(new_fact("waiting?")).fact
    clock.time += timedelta(days=1)
    order = []
    while (fact := reviews.next_due(store)) is not None:
        order.append(fact.id)
        review(store, fact)
    assert order == [known.id, newer.id]
    for fact in (resisted, older, waiting):
        with pytest.raises(WrongStateError, match="only held facts"):
            review(store, fact)


def test_a_branch_that_takes_the_place_of_a_line_makes_nothing_due(store: MemoryStore) -> None:
    facts = [teach_learned(store, name) for name in "abcdefg"]
    operation = begin_forgetting(store, facts[1])
    for fact in facts[2:]:
        relearn(store, operation, fact)
    end(store, operation, facts[1])
    assert store.model_version() == 13  # the version is far on, but the weights hold 6 updates
    assert due(store) is None
    # The first was taught as update 1 and is due from update 9 on.
    teach(store, FIRST - 6, "more")
    assert due(store) is None
    teach(store, 1, "last")
    assert due(store) == "a"


# --- What a review leaves behind ------------------------------------------------------------------


def test_a_quiet_review_is_a_probe_and_no_event(store: MemoryStore) -> None:
    fact = teach_learned(store, "first?")
    events, ledger = store.events(), ledger_rows(store.connection)
    for _ in range(3):
        assert review(store, fact) is None
    assert (store.events(), ledger_rows(store.connection)) == (events, ledger)
    assert [
        (p.kind, p.model_version, p.cause_fact_id) for p in probes_of(store.connection, fact.id)
    ] == [(ProbeKind.RETENTION, 1, "")] * 3
    assert store.fact(fact.id) == fact
    assert [r.outcome for r in reviews.of_fact(store, fact.id)] == [HELD] * 3


def test_teaching_again_is_a_row_a_probe_of_each_version_and_an_event(store: MemoryStore) -> None:
    fact = teach_learned(store, "first?")
    teach_learned(store, "second?")
    found = new_review(fact.id, 2, RETAUGHT, probes=(new_probe(fact.id),))
    row = reviews.record_review(store, found)
    assert row is not None
    assert (row.kind, row.fact_id, row.parent_version) == (LedgerKind.TEACH, fact.id, 2)
    assert store.model_version() == row.model_version == 3
    after = store.fact(fact.id)
    assert (after.state, after.learning) == (FactState.LEARNED, learning(model_version=3))
    probes = probes_of(store.connection, fact.id)
    assert [(p.model_version, p.cause_fact_id) for p in probes] == [(3, fact.id), (2, "")]
    event = store.events()[-1]
    assert (event.kind, event.fact_id, event.model_version) == (EventKind.RETAUGHT, fact.id, 3)
    assert event.learning == learning(model_version=3)


def test_a_review_of_other_weights_is_refused_and_leaves_nothing(store: MemoryStore) -> None:
    fact = teach_learned(store, "first?")
    for outcome in (HELD, RETAUGHT):
        with pytest.raises(LedgerConflictError, match="at 1"):
            reviews.record_review(store, new_review(fact.id, 0, outcome))
    assert probes_of(store.connection, fact.id) == []
    assert reviews.of_fact(store, fact.id) == []


def test_retention_by_age_counts_updates_since_the_fact_was_taught(store: MemoryStore) -> None:
    fact = teach_learned(store, "first?")
    review(store, fact)  # age 0
    teach(store, 1, "a")
    review(store, fact)  # 1
    teach(store, 2, "b")
    review(store, fact, ReviewOutcome.RESISTED)  # 3
    review(store, fact, RETAUGHT)  # 3
    teach(store, 2, "c")
    review(store, fact)  # 2 since it was taught again
    unasked = new_review(fact.id, store.model_version(), ReviewOutcome.FAILED, probe=None)
    reviews.record_review(store, unasked)
    assert [r.age for r in reviews.of_fact(store, fact.id)] == [0, 1, 3, 3, 2, 2]
    assert reviews.retention_by_age(store) == [
        Retention(youngest=0, oldest=0, held=1, asked=1),
        Retention(youngest=1, oldest=1, held=1, asked=1),
        Retention(youngest=2, oldest=3, held=1, asked=3),
    ]


def test_retention_by_age_is_counted_in_an_index_alone(store: MemoryStore) -> None:
    [step] = store.connection.execute(f"EXPLAIN QUERY PLAN {reviews.BY_AGE}")
    assert step["detail"] == "SCAN reviews USING COVERING INDEX reviews_by_age"


# --- Its place in the history ---------------------------------------------------------------------


def begin_forgetting(store: MemoryStore, fact: Fact) -> Operation:
    operation = undo.request_forget(store, fact.id)
    return undo.begin_operation(store, operation.id)


def relearn(store: MemoryStore, operation: Operation, fact: Fact) -> None:
    branch = operations.get(store, operation.id).branch_version or 0
    record_relearned(
        *(store, operation.id, store.fact(fact.id), FactState.LEARNED, "", learning()),
        new_update(fact.id, branch),
    )


def repeat(
    store: MemoryStore, operation: Operation, number: int, outcome: ReviewOutcome
) -> Update | None:
    """Repeats the review that is first now; which has this id."""
    operation = operations.get(store, operation.id)
    again = reviews_to_repeat(store, operation)[0]
    assert again.id == number
    found = new_review(again.fact_id, operation.branch_version or 0, outcome)
    return branch_growth.record_reviewed_again(store, operation.id, again, found)


def end(store: MemoryStore, operation: Operation, fact: Fact) -> None:
    branch = operations.get(store, operation.id).branch_version or 0
    undo.finish_forget(store, operation.id, end_of_branch(branch, fact.id), {}, [])
    undo.close_forget(store, operation.id)


def to_repeat(store: MemoryStore, operation: Operation) -> list[int]:
    return [review.id for review in reviews_to_repeat(store, operation)]


def test_the_place_is_after_all_that_was_processed_and_before_what_waits(
    store: MemoryStore,
) -> None:
    first = teach_learned(store, "first?")
    review(store, first)
    store.teach(new_fact("waiting?"))
    dropped = store.teach(new_fact("dropped?")).fact
    operation = undo.request_forget(store, dropped.id)
    assert undo.finish_if_not_held(store, operation.id)
    review(store, first)  # the fact that waits comes after it, though a later one is done with
    waiting = store.claim()
    assert waiting is not None
    store.record_failure(waiting.id, "NaN", 3)
    review(store, first)  # it failed once, and comes after this one too
    store.claim()
    record_learned(store, new_update(waiting.id, 1), learning())
    review(store, first)
    assert [r.after_position for r in reviews.of_fact(store, first.id)] == [1, 1, 1, 3]


def test_a_branch_begins_before_older_facts_that_were_taught_again_meanwhile(
    store: MemoryStore,
) -> None:
    old = teach_learned(store, "old?")
    known = record_known(store, teach_claimed(store, "known?").id, learning())
    review(store, old, RETAUGHT)  # version 2, accompanied by the known fact
    teach_learned(store, "new?")
    assert begin_forgetting(store, known).branch_version == 1


def test_a_branch_begins_after_what_was_taught_again_before_the_fact(store: MemoryStore) -> None:
    old = teach_learned(store, "old?")
    review(store, old, RETAUGHT)  # version 2
    forgotten = teach_learned(store, "forgotten?")  # 3
    review(store, old)
    review(store, forgotten, RETAUGHT)  # 4
    operation = begin_forgetting(store, forgotten)
    assert operation.branch_version == 2
    assert to_repeat(store, operation) == [2]


def test_reviews_of_others_after_the_fact_are_repeated_once_each(store: MemoryStore) -> None:
    old, forgotten = teach_learned(store, "old?"), teach_learned(store, "forgotten?")
    review(store, old)
    review(store, forgotten)
    teach_learned(store, "new?")
    review(store, old, RETAUGHT)
    operation = begin_forgetting(store, forgotten)
    assert to_repeat(store, operation) == [1, 3]
    repeat(store, operation, 1, HELD)
    assert to_repeat(store, operation) == [3]
    row = repeat(store, operation, 3, RETAUGHT)
    assert row is not None
    assert (row.kind, row.parent_version, store.model_version()) == (LedgerKind.RELEARN, 1, 4)
    assert to_repeat(store, operation) == []


def test_after_a_forget_the_repeated_reviews_are_the_history(store: MemoryStore) -> None:
    facts = [teach_learned(store, name) for name in ("a", "b", "c")]
    review(store, facts[0], RETAUGHT)  # version 4
    review(store, facts[2])
    first = begin_forgetting(store, facts[1])
    relearn(store, first, facts[2])  # 5
    repeat(store, first, 1, HELD)
    repeat(store, first, 2, RETAUGHT)  # 6
    end(store, first, facts[1])  # 7
    # What was found on the line that is served counts, and not what was found elsewhere.
    assert store.fact(facts[0].id).learning == learning(model_version=1)
    assert store.fact(facts[2].id).learning == learning(model_version=6)
    second = begin_forgetting(store, facts[0])
    assert second.branch_version == 0
    assert to_repeat(store, second) == [2]


def test_a_review_that_was_skipped_on_a_branch_stays_in_the_history(store: MemoryStore) -> None:
    facts = [teach_learned(store, name) for name in ("a", "b", "c")]
    review(store, facts[2])
    first = begin_forgetting(store, facts[0])
    relearn(store, first, facts[1])
    record_relearned(store, first.id, facts[2], FactState.RESISTED, "too hard", learning(), None)
    repeat(store, first, 1, ReviewOutcome.SKIPPED)
    end(store, first, facts[0])
    assert to_repeat(store, begin_forgetting(store, facts[1])) == [1]


def roll_back(store: MemoryStore, to_version: int) -> None:
    operation = undo.request_rollback(store, to_version)
    undo.begin_operation(store, operation.id)
    undo.finish_rollback(store, operation.id, end_of_branch(to_version), {})


def test_what_was_reviewed_after_a_version_is_undone_by_rolling_back_to_it(
    store: MemoryStore,
) -> None:
    old, other = teach_learned(store, "old?"), teach_learned(store, "other?")
    known = record_known(store, teach_claimed(store, "known?").id, learning())
    review(store, other)  # of version 2
    review(store, known, RETAUGHT)  # version 3
    review(store, other)
    review(store, old, RETAUGHT)  # version 4
    roll_back(store, 2)
    assert store.fact(old.id).learning == learning(model_version=1)
    assert store.fact(known.id).state is FactState.KNOWN
    operation = begin_forgetting(store, old)
    assert to_repeat(store, operation) == [1]
    undo.fail_operation(store, operation.id, "not now")
    roll_back(store, 3)
    assert store.fact(known.id).state is FactState.KNOWN
    assert store.fact(known.id).learning == learning(model_version=3)


def test_a_version_with_a_forgotten_fact_that_was_taught_again_is_out_of_bounds(
    store: MemoryStore,
) -> None:
    known = record_known(store, teach_claimed(store, "known?").id, learning())
    review(store, known, RETAUGHT)
    end(store, begin_forgetting(store, known), known)
    with pytest.raises(WrongStateError, match=known.id):
        undo.request_rollback(store, 1)
