"""Values in columns: every policy and every finding is read as it was written, old ones too."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_store.encoding import read_learning, read_policy, write_learning, write_policy
from memory_store.records import Guards, Learning, Policy, RatePoint
from memory_store.store import MemoryStore
from tests.store.builders import learning, new_update, teach_claimed

COUNTS = st.integers(0, 2**32 - 1)
NUMBERS = st.floats(allow_nan=False)  # NaN equals nothing, itself included
TEXTS = st.text(max_size=8)
GUARDS = st.builds(Guards, **{field.name: COUNTS for field in fields(Guards)})
POLICIES = st.builds(
    Policy, name=TEXTS, learning_rate=NUMBERS, max_steps=COUNTS, guards=st.none() | GUARDS
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


@pytest.mark.parametrize("base_answer", [None, "", "It is July."])
def test_the_store_keeps_guards_curves_and_base_answers(
    path: Path, base_answer: str | None
) -> None:
    found = learning(curve=CURVE, base_answer=base_answer)
    with MemoryStore.open(path) as store:
        fact = teach_claimed(store)
        store.record_learned(new_update(fact.id, 0, policy=SEARCH), found)
    with MemoryStore.open(path) as store:
        assert store.update(1).policy == SEARCH
        kept = store.fact(fact.id)
        assert kept.tried_policy == SEARCH
        assert kept.learning == replace(found, model_version=1)
        assert store.events()[-1].learning == kept.learning
