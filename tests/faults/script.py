"""What a client does, from a seed: teaches, forgets, rolls back. Can be repeated at any point.

The weights at its end do not depend on how fast facts are learned meanwhile: forgetting is exact,
and a rollback waits until there is nothing left to do.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from memory_store import ledger, operations, undo
from memory_store.facts import count_by_state
from memory_store.ledger import TAUGHT
from memory_store.store import MemoryStore
from memory_store.vocabulary import Fact, FactState, NewFact, OperationKind


@dataclass(frozen=True, slots=True)
class Teach:
    """Hand in a fact."""

    new: NewFact


@dataclass(frozen=True, slots=True)
class Forget:
    """Have a fact forgotten, whether it was learned already or not."""

    fact_id: str
    erase: bool


@dataclass(frozen=True, slots=True)
class RollBack:
    """Go back by some facts, once all is done; `number` counts the rollbacks from 1."""

    number: int
    facts: int


def write_script(seed: int, facts: int) -> list[Teach | Forget | RollBack]:
    """Steps with so many facts, a forgetting every eight, and a rollback in the middle."""
    chance = random.Random(seed)
    steps: list[Teach | Forget | RollBack] = []
    taught: list[NewFact] = []
    for number in range(facts):
        question, correlated = f"Question {number}?", (f"What of {number}?",)
        if taught and chance.random() < 0.1:
            question = chance.choice(taught).question  # another answer to it
        new = NewFact(
            question=question,
            answer=f"Answer {number}",
            correlated_questions=correlated if chance.random() < 0.3 else (),
            request_id=f"request-{number}",
            fact_id=f"fact-{number}",
        )
        taught.append(new)
        steps.append(Teach(new))
        if number % 8 == 7:
            # Mostly a recent one: everything after it is learned again.
            forgotten = taught.pop(-min(len(taught), 1 + int(chance.expovariate(0.25))))
            assert forgotten.fact_id is not None
            steps.append(Forget(forgotten.fact_id, chance.random() < 0.3))
        if number == facts // 2:
            steps.append(RollBack(1, chance.randrange(1, 6)))
    return steps


def teach(store: MemoryStore, new: NewFact) -> None:
    """Hands a fact in, again if need be, unless it was taken back since."""
    assert new.fact_id is not None
    stored = {fact.id: fact for fact in store.facts(limit=10**9)}
    before = stored.get(new.fact_id)
    if before is not None and (before.state is FactState.FORGOTTEN or before.erased):
        return
    assert store.teach(new).fact.id == new.fact_id


def roll_back(store: MemoryStore, step: RollBack) -> None:
    """Asks for the rollback, unless that was done."""
    asked = store.connection.execute(
        "SELECT count(*) AS number FROM operations WHERE kind = ?", [OperationKind.ROLLBACK.value]
    )
    if asked[0]["number"] < step.number:
        line = ledger.at_versions(
            store.connection, ledger.lineage(store.connection, store.model_version())
        )
        taught = [row.model_version for row in line if row.kind in TAUGHT]
        undo.request_rollback(store, taught[-1 - step.facts])


def is_settled(store: MemoryStore) -> bool:
    """Whether there is nothing left to do."""
    counts = count_by_state(store.connection)
    busy = counts[FactState.QUEUED] + counts[FactState.LEARNING]
    return not busy and operations.oldest_open(store) is None


def state_of(fact: Fact) -> tuple[str, str, str]:
    """What must be the same with and without faults."""
    # What once took a forgotten fact's place depends on whether it was learned in time.
    superseded = fact.state is FactState.SUPERSEDED
    return fact.id, fact.state.value, fact.superseded_by if superseded else ""
