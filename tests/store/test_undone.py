"""What a rollback undid is not shown as if it were so now."""

from __future__ import annotations

import pytest

from memory_store import fresh_start, undo
from memory_store.provenance import influences_on
from memory_store.retention import last_probes
from memory_store.store import MemoryStore
from memory_store.undone import Undone, by_rollbacks
from memory_store.vocabulary import ProbeKind
from tests.store.builders import (
    end_of_branch,
    learning,
    new_probe,
    new_update,
    record_learned,
    teach_claimed,
    teach_learned,
)


def roll_back(store: MemoryStore, to_version: int) -> int:
    operation = undo.request_rollback(store, to_version)
    undo.begin_operation(store, operation.id)
    row = undo.finish_rollback(store, operation.id, end_of_branch(to_version), {})
    return row.model_version


def test_of_rollbacks_only_those_count_that_were_not_undone(store: MemoryStore) -> None:
    for number in range(3):
        teach_learned(store, f"q{number}?")  # versions 1 to 3
    assert by_rollbacks(store.connection) == []
    assert roll_back(store, 2) == 4
    assert by_rollbacks(store.connection) == [Undone(after=2, before=4)]
    teach_learned(store, "later?")  # 5
    assert roll_back(store, 4) == 6
    assert by_rollbacks(store.connection) == [Undone(4, 6), Undone(2, 4)]
    assert [v for v in range(8) if any(v in u for u in by_rollbacks(store.connection))] == [3, 5]
    assert roll_back(store, 1) == 7
    assert by_rollbacks(store.connection) == [Undone(1, 7)]


def test_a_fresh_start_undoes_versions_as_a_rollback_does(store: MemoryStore) -> None:
    for number in range(3):
        teach_learned(store, f"q{number}?")  # versions 1 to 3
    row = fresh_start.start_over(store, end_of_branch(2), "another release made version 3")
    assert by_rollbacks(store.connection) == [Undone(after=2, before=row.model_version)]
    assert roll_back(store, 1) == 5
    assert by_rollbacks(store.connection) == [Undone(1, 5)]
    fact = store.facts(limit=1)[0]
    store.record_probes([new_probe(fact.id)], 5)
    assert [p.model_version for p in last_probes(store, 10, 10)[0].points] == [5]


def test_a_rollback_undoes_everything_after_the_version_that_it_could_reach(
    store: MemoryStore,
) -> None:
    """Version 3 was asked for; its weights are learned again from those of version 1."""
    for number in range(4):
        teach_learned(store, f"q{number}?")  # versions 1 to 4
    operation = undo.request_rollback(store, 3)
    undo.begin_operation(store, operation.id)
    undo.finish_rollback(store, operation.id, end_of_branch(1), {})
    assert by_rollbacks(store.connection) == [Undone(after=1, before=5)]


def test_retention_shows_no_probe_of_weights_that_were_undone(store: MemoryStore) -> None:
    fact = teach_learned(store, "first?")
    store.record_probes([new_probe(fact.id)], 1)
    teach_learned(store, "second?")
    store.record_probes([new_probe(fact.id)], 2)
    assert [p.model_version for p in last_probes(store, 10, 10)[0].points] == [2, 1]
    roll_back(store, 1)
    [held] = last_probes(store, 10, 10)
    assert (held.fact_id, [p.model_version for p in held.points]) == (fact.id, [1])
    store.record_probes([new_probe(fact.id)], 3)
    assert [p.model_version for p in last_probes(store, 10, 10)[0].points] == [3, 1]


@pytest.mark.parametrize("asked", [True, False])
def test_an_update_that_was_undone_explains_nothing(store: MemoryStore, asked: bool) -> None:
    fact = teach_learned(store, "first?")
    other = teach_claimed(store, "second?")
    moved = new_probe(fact.id, kind=ProbeKind.FORGETTING)
    record_learned(store, new_update(other.id, store.model_version()), learning(), [moved])
    assert [i.cause_fact_id for i in influences_on(store, "first?")[1]] == [other.id]
    if asked:
        roll_back(store, 1)
    else:
        fresh_start.start_over(store, end_of_branch(1), "it cannot be reached")
    assert influences_on(store, "first?")[1] == []
