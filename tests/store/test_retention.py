"""The last probes of held facts, and which facts they are of when there are many."""

from __future__ import annotations

import math

import pytest

from memory_store.retention import last_probes
from memory_store.store import MemoryStore
from memory_store.vocabulary import ProbeKind
from tests.store.builders import new_fact, new_probe, teach_learned


def test_probes_are_those_of_the_own_question_newest_first(store: MemoryStore) -> None:
    fact = teach_learned(store)
    for kind in (ProbeKind.RETENTION, ProbeKind.TRANSFER, ProbeKind.FORGETTING):
        store.record_probes([new_probe(fact.id, kind=kind, log_probability=-1.0)], 1)
    store.record_probes([new_probe(fact.id, log_probability=0.0)], 2)
    [told] = last_probes(store, 10, 2)
    assert told.fact_id == fact.id
    assert [(p.model_version, p.probability) for p in told.points] == [(2, 1), (1, math.exp(-1))]


def test_age_is_counted_in_updates_and_what_is_not_held_is_left_out(store: MemoryStore) -> None:
    taught = [teach_learned(store, f"q{number}?") for number in range(3)]
    store.teach(new_fact("waits?"))
    assert [(t.fact_id, t.age) for t in last_probes(store, 10, 1)] == [
        (fact.id, age) for fact, age in zip(taught, (2, 1, 0), strict=True)
    ]


@pytest.mark.parametrize(("limit", "step"), [(1, 16), (3, 8), (7, 2), (13, 2), (14, 1)])
def test_of_many_facts_some_are_told_spread_over_all(
    store: MemoryStore, limit: int, step: int
) -> None:
    order = [teach_learned(store, f"q{number}?").id for number in range(14)]
    assert [fact.fact_id for fact in last_probes(store, limit, 1)] == order[::step]


def test_the_same_facts_are_told_of_as_more_are_taught(store: MemoryStore) -> None:
    order = [teach_learned(store, f"q{number}?").id for number in range(9)]
    assert [fact.fact_id for fact in last_probes(store, 5, 1)] == order[::2]
    order.append(teach_learned(store, "one more?").id)
    assert [fact.fact_id for fact in last_probes(store, 5, 1)] == order[::2]
