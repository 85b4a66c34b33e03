"""What a kind of fault was found to do."""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from memory_store import ledger
from memory_store.ledger import TAUGHT
from memory_store.store import MemoryStore
from memory_store.vocabulary import EventKind, LedgerKind, Update
from tests.store import integrity
from tests.store.builders import ledger_rows

ALL = 10**9


@dataclass(slots=True, kw_only=True)
class Findings:
    """Of all cases of one kind.

    Attributes:
        kind: of fault.
        seed: that repeats them, as far as they do not depend on moments.
        cases: how many there were.
        lost: acknowledged facts, updates or events that were gone.
        applied_twice: updates that were there more than once.
        diverged: other weights or other contents than without the fault, or damaged files.
        remarks: what else is worth telling.
        points: how many cases there were at each named point.
    """

    kind: str
    seed: int
    cases: int = 0
    lost: int = 0
    applied_twice: int = 0
    diverged: int = 0
    remarks: list[str] = field(default_factory=list)
    points: Counter[str] = field(default_factory=Counter)

    def lose(self, missing: Collection[object], where: str) -> None:
        """Counts what was acknowledged and is gone."""
        if missing:
            self.lost += len(missing)
            self.remarks.append(f"{where}: lost {sorted(map(str, missing))[:5]}")

    def diverge(self, what: str) -> None:
        """Counts a case that is not as it would be without the fault."""
        self.diverged += 1
        self.remarks.append(what)

    def require(self, cases: int) -> None:
        """Fails unless there were so many cases, and nothing went wrong in any."""
        assert self.cases >= cases, self
        assert (self.lost, self.applied_twice, self.diverged) == (0, 0, 0), self


def new_seed() -> int:
    """From FAULTS_SEED, or a new one; printed, so that a failure can be repeated."""
    given = os.environ.get("FAULTS_SEED")
    seed = int(given) if given else random.SystemRandom().randrange(2**32)
    print(f"FAULTS_SEED={seed}")  # shown by pytest if the test fails
    return seed


def check_memory(
    store: MemoryStore, acknowledged: Collection[str], findings: Findings, where: str
) -> None:
    """Whether a memory is whole: nothing lost, nothing twice, no gap, no damage."""
    findings.lose(set(acknowledged) - {fact.id for fact in store.facts(limit=ALL)}, where)
    problems = integrity.problems(store.connection)
    updates = ledger_rows(store.connection)
    if [row.model_version for row in updates] != list(range(1, len(updates) + 1)):
        problems.append("the ledger has a gap")
    sequences = [event.sequence for event in store.events(limit=ALL)]
    if sequences != list(range(1, len(sequences) + 1)):
        problems.append("the events have a gap")
    lineage = ledger.at_versions(
        store.connection, ledger.lineage(store.connection, store.model_version())
    )
    problems += _broken_chain(lineage)
    if problems:
        findings.diverge(f"{where}: {problems}")
    # A review may teach a fact once more, and records the row.
    reviewed = _rows_of_reviews(store)
    taught = [row for row in updates if row.model_version not in reviewed]
    on_line = {row.model_version for row in lineage}
    twice = _repeated_on_head(store, [row for row in taught if row.kind is LedgerKind.TEACH])
    twice |= _repeated(
        [row for row in taught if row.kind in TAUGHT and row.model_version in on_line]
    )
    if twice:
        findings.applied_twice += len(twice)
        findings.remarks.append(f"{where}: versions {sorted(twice)} apply a fact again")


def _rows_of_reviews(store: MemoryStore) -> set[int]:
    rows = store.connection.execute(
        "SELECT retaught_version AS version FROM reviews WHERE outcome = 'retaught'"
        " UNION SELECT model_version FROM reviewed_again WHERE outcome = 'retaught'"
    )
    return {int(row["version"]) for row in rows}


def _broken_chain(lineage: Sequence[Update]) -> list[str]:
    """Where a row was not made on the weights, or not on the version, that it follows."""
    return [
        f"version {after.model_version} does not follow {before.model_version}"
        for before, after in itertools.pairwise(lineage)
        if after.parent_version != before.model_version
        or (after.kind in TAUGHT and after.digest_before != before.digest_after)
        or (after.kind not in TAUGHT and after.digest_after != before.digest_after)
    ]


def _repeated(rows: Sequence[Update]) -> set[int]:
    """Versions whose fact has an earlier row."""
    return {after.model_version for _, after in _pairs(rows)}


def _repeated_on_head(store: MemoryStore, rows: Sequence[Update]) -> set[int]:
    """Versions that teach a fact again although nothing had taken it out of the served weights.

    A start that cannot replay the head goes back to an earlier version, and queues again what that
    one does not hold. An erase that is killed before a snapshot or a branch without the fact leads
    to this: the text that the replay needs is gone. So do a rollback and another release.
    """
    return {
        after.model_version
        for before, after in _pairs(rows)
        if not any(
            event.kind is EventKind.REQUEUED
            and before.model_version < event.model_version < after.model_version
            and before.model_version not in ledger.lineage(store.connection, event.model_version)
            for event in store.events(fact_ids=[after.fact_id], limit=ALL)
        )
    }


def _pairs(rows: Sequence[Update]) -> Iterator[tuple[Update, Update]]:
    """Each row of a fact with the next one of the same fact."""
    last: dict[str, Update] = {}
    for row in rows:
        if row.fact_id in last:
            yield last[row.fact_id], row
        last[row.fact_id] = row
