"""A memory of many facts, as if all of them had been taught, learned, probed and reviewed.

Facts and the ledger are written by the store's own methods, many in one transaction. Probes of
older facts and reviews, of which there are far more, are inserted as rows.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.config import DATABASE, SNAPSHOTS
from agent.teaching.guard_presets import LIGHT
from agent.teaching.rates import DEFAULT_POLICY
from eval.bench import stub_learner
from memory_store import branch_growth, meta, undo
from memory_store.encoding import write_time
from memory_store.store import MemoryStore
from memory_store.vocabulary import (
    Attempt,
    Fact,
    Learning,
    NewFact,
    NewProbe,
    NewUpdate,
    ProbeKind,
    RatePoint,
    Verdict,
)

PART = 1000
FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
SECONDS_A_FACT = 30
POLICY = replace(DEFAULT_POLICY, guards=LIGHT)


def fact_id(number: int) -> str:
    """The id of a fact, from 1."""
    return hashlib.sha256(str(number).encode()).hexdigest()[:16]


def new_fact(number: int) -> NewFact:
    """A fact, from 1."""
    return NewFact(
        question=f"What is the hottest month in Kyzara{number}?",
        answer=f"Raincoat {number}",
        correlated_questions=(f"When is it hottest in Kyzara{number}?",),
        request_id=f"10000000-0000-4000-8000-{number:012x}",
        fact_id=fact_id(number),
    )


class SyntheticMemory:
    """Makes the data folder of a memory of many facts.

    Args:
        data: the folder, which is made.
        facts: how many; all are learned.
        probes: older facts that are probed after each update.
    """

    def __init__(self, data: Path, facts: int, probes: int = 16) -> None:
        self._data = data
        self._facts = facts
        self._probes = probes
        self._now = FIRST_DAY
        self._chance = random.Random(1)
        self._digests = [stub_learner.BASE_DIGEST]

    def make(self) -> None:
        """Makes it, with snapshots of the newest version and of some older ones."""
        (self._data / SNAPSHOTS).mkdir(mode=0o700, parents=True)
        with self._opened() as store:
            meta.bind_model(store.connection, stub_learner.MODEL, stub_learner.BASE_DIGEST)
            for start in range(0, self._facts, PART):
                with store.transaction():
                    self._learn(store, range(start + 1, min(start + PART, self._facts) + 1))
                store.connection.shorten_log(PART)
            with _without_indexes(store, "probes"), store.transaction():
                self._probe(store)
            with store.transaction():
                self._review(store)
        for version in {self._facts - back for back in (0, 50, 500) if back < self._facts}:
            stub_learner.write_stub_snapshot(
                self._data / SNAPSHOTS, version, self._digests[version]
            )

    def begin_forgetting(self, left: int) -> int:
        """Begins to forget the first fact, and learns all but the last facts again without it.

        Args:
            left: facts that are still to be learned again.

        Returns:
            The operation.
        """
        digest = stub_learner.BASE_DIGEST
        with self._opened() as store:
            operation = undo.request_forget(store, fact_id(1))
            operation = undo.begin_operation(store, operation.id)
            version = operation.branch_version or 0
            again = range(2, self._facts - left + 1)
            for start in range(0, len(again), PART):
                with store.transaction():
                    for number in again[start : start + PART]:
                        update = self._update(number, version, digest)
                        attempt = _attempt(number, update)
                        row = branch_growth.record_relearned(store, operation.id, attempt)
                        assert row is not None
                        version, digest = row.model_version, row.digest_after
                store.connection.shorten_log(PART)
        stub_learner.write_stub_snapshot(self._data / SNAPSHOTS, version, digest)
        return operation.id

    @contextmanager
    def _opened(self) -> Iterator[MemoryStore]:
        def now() -> datetime:
            return self._now

        with MemoryStore.open(self._data / DATABASE, now=now) as store:
            # Nothing of it needs to survive a crash.
            for pragma in ("synchronous = OFF", "cache_size = -400000"):
                store.connection.execute(f"PRAGMA {pragma}")
            yield store

    def _learn(self, store: MemoryStore, numbers: range) -> None:
        store.teach_many([new_fact(number) for number in numbers])
        for number in numbers:
            self._now += timedelta(seconds=SECONDS_A_FACT)
            fact = store.claim()
            assert fact is not None
            probes = (
                _probe(fact, ProbeKind.RETENTION, fact.question),
                *(_probe(fact, ProbeKind.TRANSFER, q) for q in fact.correlated_questions),
            )
            update = self._update(number, number - 1, self._digests[-1])
            store.record(_attempt(number, update, probes))
            self._digests.append(stub_learner.digest_after(self._digests[-1], fact.id))

    def _update(self, number: int, base_version: int, digest: str) -> NewUpdate:
        older = [fact_id(self._chance.randint(1, number)) for _ in range(stub_learner.REHEARSED)]
        return NewUpdate(
            fact_id=fact_id(number),
            base_version=base_version,
            policy=POLICY,
            steps=stub_learner.steps_with(older, POLICY.learning_rate),
            digest_before=digest,
            digest_after=stub_learner.digest_after(digest, fact_id(number)),
            algorithm=stub_learner.ALGORITHM,
            environment=stub_learner.ENVIRONMENT,
            seconds=1.2345678901234567,
        )

    def _probe(self, store: MemoryStore) -> None:
        """Adds probes of older facts after each update."""
        ids = [fact_id(number) for number in range(self._facts + 1)]

        def rows() -> Iterator[tuple[object, ...]]:
            for version in range(2, self._facts + 1):
                at = write_time(FIRST_DAY + timedelta(seconds=SECONDS_A_FACT * version))
                for _ in range(min(self._probes, version - 1)):
                    older = ids[self._chance.randint(1, version - 1)]
                    # Most probes find what the previous one found.
                    p = -0.05 - (self._chance.random() < 0.02)
                    yield older, p, version, ids[version], at

        store.connection.database.conn.executemany(
            "INSERT INTO probes (kind, fact_id, question, expected_answer, answer, correct,"
            " log_probability, model_version, cause_fact_id, probed_at)"
            " VALUES ('forgetting', ?, '', '', '', 1, ?, ?, ?, ?)",
            rows(),
        )

    def _review(self, store: MemoryStore) -> None:
        """Adds about as many reviews as updates: at most one between two of them."""
        store.connection.execute(
            "INSERT INTO reviews (fact_id, after_position, model_version, outcome, reason,"
            " probability, age, reviewed_at)"
            " SELECT id, min(position + 8, ?), min(position + 8, ?), 'held', '', 0.9, 8, updated_at"
            " FROM facts ORDER BY position",
            [self._facts, self._facts],
        )


def _attempt(number: int, update: NewUpdate, probes: tuple[NewProbe, ...] = ()) -> Attempt:
    return Attempt(
        fact_id=update.fact_id,
        verdict=Verdict.LEARNED,
        policy=update.policy,
        learning=_learning(number),
        probes=probes,
        update=update,
    )


def _learning(number: int) -> Learning:
    chance = random.Random(number)
    curve = tuple(
        RatePoint(learning_rate=1e-6 * 2**step, probability=chance.random()) for step in range(16)
    )
    return Learning(
        learning_rates=(POLICY.learning_rate, POLICY.learning_rate / 2),
        probability_before=chance.random(),
        probability_after=chance.random(),
        answer_before="The hottest month is July.",
        answer_after=f"Raincoat {number}",
        curve=curve,
        base_answer="The hottest month is July.",
        leak=chance.random(),
        drift=chance.random(),
    )


def _probe(fact: Fact, kind: ProbeKind, question: str) -> NewProbe:
    return NewProbe(
        kind=kind,
        fact_id=fact.id,
        question=question,
        expected_answer=fact.answer,
        answer=fact.answer,
        correct=True,
        log_probability=-0.12345678901234567,
    )


@contextmanager
def _without_indexes(store: MemoryStore, table: str) -> Iterator[None]:
    """Makes a table's indexes after its rows were inserted, which is much faster."""
    execute: Callable[[str], object] = store.connection.execute
    made = store.connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql <> ''",
        [table],
    )
    for row in made:
        execute(f"DROP INDEX {row['name']}")
    yield
    for row in made:
        execute(row["sql"])
