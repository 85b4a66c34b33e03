"""Samples of older facts depend on ids alone, and change as little as they can."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_store.companion_sampling import HeldFacts, sample_ids
from memory_store.facts import companions, question_key
from memory_store.store import MemoryStore
from memory_store.vocabulary import Fact
from tests.store.builders import (
    ids,
    learning,
    new_fact,
    record_known,
    record_resisted,
    teach_claimed,
    teach_learned,
)

NAMES = [f"fact-{number:03}" for number in range(60)]


def fill(store: MemoryStore, names: list[str], question: str = "question of {}") -> None:
    with store.transaction():
        for name in names:
            store.teach(new_fact(question.format(name), f"answer {name}", fact_id=name))
            claimed = store.claim()
            assert claimed is not None
            record_known(store, claimed.id, learning())


def subject(store: MemoryStore, name: str = "subject") -> Fact:
    return store.teach(new_fact(f"about {name}", "x", fact_id=name)).fact


def test_all_are_returned_if_there_are_few(store: MemoryStore) -> None:
    fill(store, NAMES[:5])
    fact = subject(store)
    for limit in (5, 6, 50):
        assert sorted(ids(companions(store.connection, fact, limit))) == NAMES[:5]
    assert len(set(ids(companions(store.connection, fact, 4)))) == 4
    assert companions(store.connection, fact, 0) == []


def test_only_learned_and_known_facts_of_other_questions_count(store: MemoryStore) -> None:
    learned = teach_learned(store, "learned")
    teach_learned(store, "superseded", "old")
    known = teach_claimed(store, "superseded", "new")
    record_known(store, known.id, learning())
    resisted = teach_claimed(store, "resisted")
    record_resisted(store, resisted.id, "", learning())
    teach_claimed(store, "learning")
    teach_learned(store, "ABOUT subject", "another answer")
    fact = subject(store)
    assert sorted(ids(companions(store.connection, fact, 10))) == sorted([learned.id, known.id])


@pytest.mark.parametrize("limit", [1, 8, 40, 59])
def test_the_order_of_teaching_changes_nothing(tmp_path: Path, limit: int) -> None:
    samples = []
    for seed in range(3):
        names = random.Random(seed).sample(NAMES, len(NAMES))
        with MemoryStore.open(tmp_path / f"{seed}.db") as store:
            # Other positions, other clock, other questions: only the ids are the same.
            fill(store, names, question=f"{seed} {{}}")
            samples.append(ids(companions(store.connection, subject(store), limit)))
    assert samples[0] == samples[1] == samples[2]
    assert len(set(samples[0])) == limit


@pytest.mark.parametrize("limit", [3, 8, 30])
def test_a_fact_that_leaves_changes_one_choice_at_most(store: MemoryStore, limit: int) -> None:
    fill(store, NAMES)
    fact = subject(store)
    before = set(ids(companions(store.connection, fact, limit)))
    for name in NAMES:
        with contextlib.suppress(_UndoError), store.transaction():
            retire(store, name)
            after = set(ids(companions(store.connection, fact, limit)))
            raise _UndoError
        if name in before:
            assert before - after == {name}
            assert len(after - before) == 1
        else:
            assert after == before


class _UndoError(Exception):
    pass


def retire(store: MemoryStore, name: str) -> None:
    """Takes a fact out of the held_facts and puts nothing in its place, which no method does."""
    store.connection.execute("UPDATE facts SET state = 'resisted' WHERE id = ?", [name])


def test_facts_are_chosen_about_equally_often(store: MemoryStore) -> None:
    fill(store, NAMES)
    fact = subject(store)
    chosen = dict.fromkeys(NAMES, 0)
    for number in range(300):
        other = dataclasses.replace(fact, id=f"s{number}")
        for name in ids(companions(store.connection, other, 20)):
            chosen[name] += 1
    # Expected 100 each. Gaps on the circle differ, so the shares do; none may be left out.
    assert min(chosen.values()) > 10
    assert len({tuple(ids(companions(store.connection, fact, 20))) for _ in range(3)}) == 1


def test_two_facts_get_different_samples(store: MemoryStore) -> None:
    fill(store, NAMES)
    assert ids(companions(store.connection, subject(store, "one-fact"), 10)) != ids(
        companions(store.connection, subject(store, "two-fact"), 10)
    )


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[MemoryStore]:
    """A store in one transaction: for many examples, which need not reach the disk."""
    with MemoryStore.open(folder / "memory.db") as store, store.transaction():
        yield store


@settings(deadline=None, max_examples=50)
@given(
    taught=st.lists(
        st.tuples(st.uuids().map(str), st.integers(0, 8)), max_size=25, unique_by=lambda t: t[0]
    ),
    subject_question=st.integers(0, 8),
    limit=st.integers(0, 30),
)
def test_candidates_in_memory_give_the_same_sample(
    taught: list[tuple[str, int]], subject_question: int, limit: int
) -> None:
    """Also where answers supersede each other: few questions, many facts."""
    held_facts = HeldFacts()
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as store:
        for fact_id, number in taught:
            store.teach(new_fact(f"q{number}", f"answer {fact_id}", fact_id=fact_id))
            store.claim()
            record_known(store, fact_id, learning())
            held_facts.add(fact_id, question_key(f"q{number}"))
        key = question_key(f"q{subject_question}")
        expected = sample_ids(store.connection, "subject", key, limit)
    assert held_facts.sample("subject", key, limit) == expected
