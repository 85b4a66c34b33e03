"""Values in columns: every policy and every finding is read as it was written, old ones too."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_store import ledger
from memory_store.encoding import (
    read_learning,
    read_policy,
    read_steps,
    write_json,
    write_learning,
    write_policy,
    write_steps,
)
from memory_store.probes import of_fact as probes_of
from memory_store.store import MemoryStore
from memory_store.vocabulary import Guards, Learning, NewProbe, Policy, Probe, RatePoint, Step
from tests.store.builders import (
    learning,
    ledger_rows,
    new_probe,
    new_update,
    record_learned,
    teach_claimed,
)

COUNTS = st.integers(0, 2**32 - 1)
NUMBERS = st.floats(allow_nan=False)  # NaN equals nothing, itself included
TEXTS = st.text(max_size=8)
GUARDS = st.builds(Guards, **{field.name: COUNTS for field in fields(Guards)})
POLICIES = st.builds(
    Policy, name=TEXTS, learning_rate=NUMBERS, max_steps=COUNTS, guards=st.none() | GUARDS
)
STEPS = st.builds(
    Step,
    learning_rate=NUMBERS,
    loss=NUMBERS,
    probability=NUMBERS,
    rehearsed_fact_ids=st.sampled_from([(), ("a",), ("a", "b")]),
    gradient_norm=NUMBERS,
    answer_tokens=COUNTS,
    candidates=COUNTS,
)
LEARNINGS = st.builds(
    Learning,
    learning_rates=st.lists(NUMBERS, max_size=3).map(tuple),
    probability_before=NUMBERS,
    probability_after=NUMBERS,
    answer_before=TEXTS,
    answer_after=TEXTS,
    model_version=COUNTS,
    curve=st.lists(st.builds(RatePoint, NUMBERS, NUMBERS), max_size=3).map(tuple),
    base_answer=st.none() | TEXTS,
)
# The numbers of a real curve, which decimal text easily loses.
CURVE = tuple(RatePoint(1e-6 * 5000.0 ** (number / 15), 0.1 * number / 3) for number in range(16))
SEARCH = Policy(
    name="search",
    learning_rate=1e-4 / 3,
    max_steps=12,
    guards=Guards(candidates=64, rehearsed=24, neighbours=23, controls=8, texts=7),
)


@given(st.none() | POLICIES)
def test_a_policy_is_read_as_it_was_written(policy: Policy | None) -> None:
    assert read_policy(write_policy(policy)) == policy


@given(st.none() | LEARNINGS)
def test_what_an_attempt_found_is_read_as_it_was_written(found: Learning | None) -> None:
    assert read_learning(write_learning(found)) == found


def test_a_policy_of_before_there_were_guards_is_read_without_any() -> None:
    old = '{"learning_rate":0.001,"max_steps":20,"name":"fixed"}'
    assert read_policy(old) == Policy(name="fixed", learning_rate=0.001, max_steps=20)


def test_what_was_found_before_there_were_curves_is_read_without_any() -> None:
    written = json.loads(write_learning(learning(curve=CURVE, base_answer="July")) or "")
    del written["curve"], written["base_answer"]
    assert read_learning(json.dumps(written)) == learning()


@given(st.lists(STEPS, max_size=4).map(tuple))
def test_steps_are_read_as_they_were_written(steps: tuple[Step, ...]) -> None:
    assert read_steps(write_steps(steps)) == steps
    # The ledger looks for rows without steps by their text.
    assert (write_steps(steps) == "[]") == (steps == ())


def test_compact_rows_are_half_as_long() -> None:  # M15
    found = learning(curve=CURVE, base_answer="It is July.")
    assert len(write_learning(found) or "") < len(write_json(dataclasses.asdict(found))) / 2
    ids = tuple(f"fact-{number:011}" for number in range(24))
    steps = [
        Step(learning_rate=1e-4 / 3, loss=1 / 3, probability=2 / 3, rehearsed_fact_ids=ids)
    ] * 3
    written_out = write_json([dataclasses.asdict(step) for step in steps])
    assert len(write_steps(tuple(steps))) < len(written_out) / 2


@pytest.mark.parametrize("base_answer", [None, "", "It is July."])
def test_the_store_keeps_guards_curves_and_base_answers(
    path: Path, base_answer: str | None
) -> None:
    found = learning(curve=CURVE, base_answer=base_answer)
    with MemoryStore.open(path) as store:
        fact = teach_claimed(store)
        record_learned(store, new_update(fact.id, 0, policy=SEARCH), found)
    with MemoryStore.open(path) as store:
        assert store.update(1).policy == SEARCH
        kept = store.fact(fact.id)
        assert kept.tried_policy == SEARCH
        assert kept.learning == replace(found, model_version=1)
        assert store.events()[-1].learning == kept.learning


def test_the_ledger_refers_to_the_row_that_says_the_same(store: MemoryStore) -> None:  # M15
    """Policy and environment are written once, and each row is read as if it had its own."""
    policies = [SEARCH, SEARCH, SEARCH, None, SEARCH, SEARCH]
    environments = [{"torch": "2.9"}] * 4 + [{"torch": "3.0"}] * 2
    for version, (policy, environment) in enumerate(zip(policies, environments, strict=True)):
        fact = teach_claimed(store, f"question {version}")
        update = new_update(fact.id, version, policy=policy, environment=environment)
        row = record_learned(store, update, learning())
        assert (row.policy, row.environment) == (policy, environment)
    rows = ledger_rows(store.connection)
    assert [row.policy for row in rows] == policies
    assert [row.environment for row in rows] == environments
    assert (
        ledger.recent(store.connection, 6, 2)
        == ledger.at_versions(store.connection, [5, 6])
        == rows[4:]
    )
    assert store.update(3) == ledger.of_fact(store.connection, rows[2].fact_id)[0] == rows[2]
    written = store.connection.execute("SELECT policy, environment FROM updates")
    assert [row["policy"][0] if row["policy"] else None for row in written] == [
        *("{", "@", "@", None, "{", "@")
    ]
    assert [row["environment"] for row in written][1:4] == ["@1", "@1", "@1"]


def test_a_probe_does_not_repeat_its_fact(store: MemoryStore) -> None:  # M15
    fact = teach_claimed(store)
    written = [
        new_probe(fact.id),
        new_probe(fact.id, correct=False, answer="Charlotte"),
        new_probe(fact.id, correct=False, answer=""),
        new_probe(fact.id, correct=True, answer="jane austen"),
        new_probe(fact.id, question="Whose is Emma?", expected_answer="Austen", answer="Austen"),
    ]
    stored = store.record_probes(written, 1)
    assert probes_of(store.connection, fact.id) == stored[::-1]
    assert [new_probe_of(probe) for probe in stored] == written
    first = store.connection.execute("SELECT * FROM probes")[0]
    assert first["question"] == first["expected_answer"] == first["answer"] == ""


def new_probe_of(probe: Probe) -> NewProbe:
    return NewProbe(**{field.name: getattr(probe, field.name) for field in fields(NewProbe)})
