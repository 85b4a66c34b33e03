"""Finds rows of the ledger that cannot be replayed, according to the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memory_store.encoding import read_steps, write_json
from memory_store.store import MemoryStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """Why a row cannot be replayed.

    Attributes:
        version: the version of the row.
        reason: for people, a clause.
        erased: the only reason is that a text that it needs was erased.
    """

    version: int
    reason: str
    erased: bool = False

    def __str__(self) -> str:
        return self.reason


def first_obstacle(store: MemoryStore, versions: Sequence[int], algorithm: str) -> Obstacle | None:
    """The first of these rows that cannot be replayed; None if all can be.

    Args:
        store: the memory.
        versions: ascending; at most some hundreds, because their steps are read.
        algorithm: the one of this release; empty for any.
    """
    erased = _erased(store)
    rows = store.connection.execute(
        "SELECT model_version AS version, fact_id, policy IS NULL AS unknown, algorithm, steps"
        " FROM updates WHERE model_version IN (SELECT value FROM json_each(?)) AND steps <> '[]'"
        " ORDER BY model_version",
        [write_json(list(versions))],
    )
    for row in rows:
        version = int(row["version"])
        # What follows a "+" is a variant, which the same release replays.
        if algorithm and row["algorithm"].partition("+")[0] != algorithm:
            return Obstacle(
                version=version,
                reason=f"update {version} was made by {row['algorithm']}, and this release replays"
                f" {algorithm} only",
            )
        if row["unknown"]:
            reason = f"update {version} was recorded without its policy"
            return Obstacle(version=version, reason=reason)
        needed = {row["fact_id"]}
        if erased:
            steps = read_steps(row["steps"])
            needed |= {id_ for step in steps for id_ in step.rehearsed_fact_ids}
        if gone := sorted(needed & erased):
            reason = f"update {version} needs the text of {gone[0]}, which was erased"
            return Obstacle(version=version, reason=reason, erased=True)
    return None


def _erased(store: MemoryStore) -> set[str]:
    """Ids of erased facts that the served weights may still hold."""
    rows = store.connection.execute(
        "SELECT DISTINCT facts.id FROM operations CROSS JOIN facts ON facts.id = fact_id"
        # The other order would read every fact.
        " WHERE erase = 1 AND operations.state <> 'done' AND question = ''"
    )
    return {row["id"] for row in rows}
