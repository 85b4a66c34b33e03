"""Short ways to make records, for tests that care about one field of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from memory_store import branch_growth, branches, erasure, ledger
from memory_store.connection import Connection
from memory_store.lines import line_of
from memory_store.store import MemoryStore
from memory_store.vocabulary import (
    Attempt,
    Fact,
    FactState,
    Learning,
    NewFact,
    NewProbe,
    NewReview,
    NewUpdate,
    Operation,
    Policy,
    ProbeKind,
    Review,
    ReviewOutcome,
    Step,
    Update,
    Verdict,
)

NO_LIMIT = 2**62


class Clock:
    """A clock that moves one second at every look."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time


def new_fact(question: str = "Who wrote Emma?", answer: str = "Jane Austen", **rest) -> NewFact:
    return NewFact(question=question, answer=answer, **rest)


def learning(**changed) -> Learning:
    fields: dict[str, Any] = {
        "learning_rates": (1e-4, 3e-5),
        "probability_before": 0.1,
        "probability_after": 0.1 + 0.2,  # a value that decimal text easily loses
        "answer_before": "no idea",
        "answer_after": "Jane Austen",
    }
    return Learning(**fields | changed)


def new_update(fact_id: str, base_version: int, **changed) -> NewUpdate:
    fields: dict[str, Any] = {
        "fact_id": fact_id,
        "base_version": base_version,
        "steps": (Step(learning_rate=1e-4, loss=2.5, probability=0.9, rehearsed_fact_ids=("a",)),),
        "digest_before": f"d{base_version}",
        "digest_after": f"d{base_version + 1}",
        "algorithm": "answer-adamw/1",
        "environment": {"torch": "2.9"},
        "seconds": 1.5,
    }
    return NewUpdate(**fields | changed)


def new_probe(fact_id: str, **changed) -> NewProbe:
    fields: dict[str, Any] = {
        "kind": ProbeKind.RETENTION,
        "fact_id": fact_id,
        "question": "Who wrote Emma?",
        "expected_answer": "Jane Austen",
        "answer": "Jane Austen",
        "correct": True,
        "log_probability": -0.25,
    }
    return NewProbe(**fields | changed)


def teach_claimed(store: MemoryStore, question: str = "Who wrote Emma?", answer="Jane Austen"):
    """A fact in `learning`; nothing else may be queued."""
    store.teach(new_fact(question, answer))
    fact = store.claim()
    assert fact is not None
    return fact


def teach_learned(store: MemoryStore, question: str = "Who wrote Emma?", answer="Jane Austen"):
    """A fact in `learned`; nothing else may be queued."""
    fact = teach_claimed(store, question, answer)
    record_learned(store, new_update(fact.id, store.model_version()), learning())
    return store.fact(fact.id)


def new_attempt(fact_id: str, found: Learning | None = None, **rest) -> Attempt:
    """An attempt that ended, well if nothing else is said."""
    return Attempt(**{"fact_id": fact_id, "verdict": Verdict.LEARNED, "learning": found} | rest)


def record_learned(
    store: MemoryStore, update: NewUpdate, learning: Learning, probes: Sequence[NewProbe] = ()
) -> Update:
    """An attempt that was learned; the row of the ledger."""
    attempt = new_attempt(
        update.fact_id, learning, update=update, policy=update.policy, probes=tuple(probes)
    )
    row = store.record(attempt)
    assert row is not None
    return row


def record_known(
    store: MemoryStore,
    fact_id: str,
    learning: Learning,
    probes: Sequence[NewProbe] = (),
    policy: Policy | None = None,
) -> Fact:
    """An attempt that found the fact known."""
    verdict = Verdict.KNOWN
    store.record(
        new_attempt(fact_id, learning, verdict=verdict, policy=policy, probes=tuple(probes))
    )
    return store.fact(fact_id)


def record_resisted(
    store: MemoryStore,
    fact_id: str,
    reason: str,
    learning: Learning,
    probes: Sequence[NewProbe] = (),
    policy: Policy | None = None,
) -> Fact:
    """An attempt that was refused."""
    rest = {"verdict": Verdict.RESISTED, "reason": reason, "policy": policy}
    store.record(new_attempt(fact_id, learning, probes=tuple(probes), **rest))
    return store.fact(fact_id)


def record_relearned(
    store: MemoryStore,
    operation_id: int,
    fact: Fact,
    verdict: FactState,
    reason: str,
    learning: Learning | None,
    update: NewUpdate | None,
    policy: Policy | None = None,
) -> Update | None:
    """An attempt on a branch; without findings it failed."""
    ended = Verdict.FAILED if verdict is FactState.QUARANTINED else Verdict(verdict)
    rest = {"verdict": ended, "reason": reason, "update": update, "policy": policy}
    return branch_growth.record_relearned(
        store, operation_id, new_attempt(fact.id, learning, **rest)
    )


def facts_to_relearn(store: MemoryStore, operation: Operation) -> list[Fact]:
    """All facts that follow the forgotten one and are not on the branch yet, in order."""
    return branches.facts_to_repeat(store, operation, NO_LIMIT)


def reviews_to_repeat(store: MemoryStore, operation: Operation) -> list[Review]:
    """All reviews of other facts that are not on the branch yet, in order."""
    line = line_of(store.connection, store.model_version())
    found = branches.next_inputs(store, operation, line, 0, NO_LIMIT).next
    return [repeated for repeated in found if isinstance(repeated, Review)]


def end_of_branch(base_version: int, fact_id: str = "") -> NewUpdate:
    """A row that takes back: no steps."""
    return new_update(fact_id, base_version, steps=(), algorithm="none")


def ids(found: list[Fact]) -> list[str]:
    return [fact.id for fact in found]


def new_review(fact_id: str, model_version: int, outcome: ReviewOutcome, **changed) -> NewReview:
    """A review of the head, with all that an outcome brings."""
    held = outcome is ReviewOutcome.HELD
    fields: dict[str, Any] = {
        "fact_id": fact_id,
        "model_version": model_version,
        "outcome": outcome,
        "probe": new_probe(fact_id, correct=held, log_probability=-0.25 if held else -3.0),
    }
    if outcome is ReviewOutcome.RETAUGHT:
        update = changed.pop("update", new_update(fact_id, model_version))
        found, probes = changed.pop("learning", learning()), changed.pop("probes", ())
        fields["attempt"] = new_attempt(fact_id, found, update=update, probes=tuple(probes))
    return NewReview(**fields | changed)


def erase_everywhere(store: MemoryStore, fact: Fact) -> list[str]:
    """Erases a fact's text as an operation does; where it is left, for people."""
    erasure.erase(store, fact)
    return search_erased(store)


def search_erased(store: MemoryStore) -> list[str]:
    """Looks everywhere for what was erased; where it is left, for people."""
    left = []
    pending = erasure.pending(store)
    kept: list[tuple[str, str, str]] = []
    for table in erasure.TABLES:
        after, more = None, True
        while more:
            page = erasure.look(store, pending, table, after)
            erasure.clean(store, page.changes)
            kept += page.kept
            after, more = page.last, page.last is not None
    for sought in pending:
        erasure.close(store, sought)
        left += erasure.kept_by_others(sought, kept)
    return left


def ledger_rows(connection: Connection, *, after_version: int = 0) -> list[Update]:
    """All rows after a version, in the order they were added."""
    versions = range(after_version + 1, ledger.newest_version(connection) + 1)
    return ledger.at_versions(connection, versions)
