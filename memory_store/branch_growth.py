"""What is added to the branch of an operation while it grows, and what it holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from memory_store import facts, ledger, operations, reviews
from memory_store.branches import ROWS_AT_ONCE
from memory_store.encoding import write_learning
from memory_store.errors import LedgerConflictError
from memory_store.store import MemoryStore
from memory_store.tables import OPEN
from memory_store.vocabulary import (
    Attempt,
    Fact,
    FactState,
    LedgerKind,
    NewReview,
    NewUpdate,
    Operation,
    Review,
    Transition,
    Update,
    Verdict,
)


def record_relearned(store: MemoryStore, operation_id: int, attempt: Attempt) -> Update | None:
    """Adds a fact to the branch of an operation, with its row of the ledger if it has one.

    A fact whose attempt failed is quarantined there.

    Raises:
        LedgerConflictError: the update was not made on the end of the branch.
    """
    with store.transaction():
        operation = operations.require(store, operation_id, Transition.GROW)
        position = store.fact(attempt.fact_id).position
        row, branch = _grow(store, operation, attempt.update)
        learning = attempt.learning
        if row is not None and learning is not None:
            learning = replace(learning, model_version=branch)
        failed = attempt.verdict is Verdict.FAILED
        verdict = FactState.QUARANTINED if failed else FactState(attempt.verdict)
        facts.note_policy(store.connection, attempt.fact_id, attempt.policy)
        store.connection.insert(
            "relearned",
            {
                "operation_id": operation_id,
                "position": position,
                "verdict": verdict.value,
                "reason": attempt.reason,
                "learning": write_learning(learning),
                "model_version": branch,
            },
        )
        done = operation.done + 1
        operations.change(
            *(store, operation_id, Transition.GROW),
            branch_version=branch,
            position=position,
            done=done,
            total=max(operation.total, done),
        )
        return row


def record_reviewed_again(
    store: MemoryStore, operation_id: int, again: Review, review: NewReview
) -> Update | None:
    """Adds a review to the branch of an operation, with its row of the ledger if it has one.

    Args:
        store: the memory.
        operation_id: of the request.
        again: the review that was carried out when the history was made.
        review: its outcome on the branch; what was measured is not kept.

    Raises:
        LedgerConflictError: the update was not made on the end of the branch.
    """
    with store.transaction():
        operation = operations.require(store, operation_id, Transition.GROW)
        row, branch, learning = None, operation.branch_version or 0, None
        if (attempt := review.attempt) is not None:
            row, branch = _grow(store, operation, attempt.update)
            learning = attempt.learning and replace(attempt.learning, model_version=branch)
        reviews.note_again(
            store, operation_id, again, review.outcome, review.reason, learning, branch
        )
        operations.change(store, operation_id, Transition.GROW, branch_version=branch)
        return row


def _grow(
    store: MemoryStore, operation: Operation, update: NewUpdate | None
) -> tuple[Update | None, int]:
    """Adds a row to the branch, if there is an update; the row, and where the branch is now."""
    if update is None:
        return None, operation.branch_version or 0
    if update.base_version != operation.branch_version:
        raise LedgerConflictError(
            f"The update for fact {update.fact_id} was made on version {update.base_version},"
            f" but the branch is at {operation.branch_version}."
        )
    row = ledger.append(store.connection, LedgerKind.RELEARN, update, store.now())
    return row, row.model_version


def held_on_branch(store: MemoryStore, operation_id: int, limit: int) -> list[Fact]:
    """At most `limit` facts that the branch holds, spread evenly over their positions."""
    held = (
        "SELECT position FROM relearned WHERE operation_id = ? AND position >= ?"
        " AND verdict IN ('learned', 'known') ORDER BY position LIMIT 1"
    )
    [ends] = store.connection.execute(
        "SELECT (SELECT min(position) FROM relearned WHERE operation_id = ?1) AS first,"
        " (SELECT max(position) FROM relearned WHERE operation_id = ?1) AS last",
        [operation_id],
    )
    if ends["first"] is None:
        return []
    every = max(1, -(-(ends["last"] - ends["first"] + 1) // limit))
    found: dict[int, Fact] = {}
    for start in range(ends["first"], ends["last"] + 1, every):
        for row in store.connection.execute(held, [operation_id, start]):
            if row["position"] not in found:
                [found[row["position"]]] = store.facts(after_position=row["position"] - 1, limit=1)
    return list(found.values())


def count_verdicts(store: MemoryStore, operation_id: int) -> dict[str, int]:
    """How many facts the branch has learned again, how many resisted there, and how many failed."""
    rows = store.connection.execute(
        "SELECT verdict, count(*) AS count FROM relearned WHERE operation_id = ? GROUP BY verdict",
        [operation_id],
    )
    found = Counter({FactState(row["verdict"]): int(row["count"]) for row in rows})
    return {
        "relearned": found[FactState.LEARNED] + found[FactState.KNOWN],
        "resisted": found[FactState.RESISTED],
        "quarantined": found[FactState.QUARANTINED],
    }


def remove_dropped(store: MemoryStore, limit: int = ROWS_AT_ONCE) -> bool:
    """Removes some of what operations had built before they began anew.

    Args:
        store: the memory.
        limit: how many rows are removed at most.

    Returns:
        Whether more may be left.
    """
    for table, column in (("relearned", "position"), ("reviewed_again", "review_id")):
        key = f"operation_id, {table}.{column}"
        removed = store.connection.execute(
            f"DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM operations JOIN {table}"
            f" ON operation_id = operations.id WHERE {OPEN} AND branch_version IS NULL LIMIT ?)"
            " RETURNING 1",
            [limit],
        )
        if removed:
            return True
    return False
