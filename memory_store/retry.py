"""Queues a quarantined or resisted fact again."""

from __future__ import annotations

from datetime import datetime

from memory_store import facts, head_switch, operations
from memory_store.connection import Connection
from memory_store.encoding import write_time
from memory_store.errors import WrongStateError
from memory_store.store import MemoryStore
from memory_store.vocabulary import EventKind, Fact, FactState

# States of facts that are not tried again without a request.
GIVEN_UP = (FactState.QUARANTINED, FactState.RESISTED)


def retry_fact(store: MemoryStore, fact_id: str) -> tuple[Fact, int]:
    """Queues a fact again as if it were taught now: after all others, without failed attempts.

    It gets a new position, because exact forgetting relies on learning in the order of positions.

    Returns:
        The fact, and the sequence of the last event before this call.

    Raises:
        FactNotFoundError: no fact has this id.
        WrongStateError: it is neither quarantined nor resisted, earlier weights hold it, a newer
            fact answers its question, or an open operation may learn it too.
    """
    with store.transaction():
        fact = store.fact(fact_id)
        if fact.state not in GIVEN_UP:
            raise WrongStateError(
                f"Fact {fact_id} is {fact.state}: only a quarantined or resisted fact can be"
                " queued again."
            )
        if _was_held(store.connection, fact):
            raise WrongStateError(
                f"Fact {fact_id} was learned once, on weights that are not served any more, and its"
                " place in that history is fixed: teach it again as a new fact."
            )
        if (operation := operations.oldest_not_served(store)) is not None:
            raise WrongStateError(
                f"Operation {operation.id} ({operation.kind}) is open, and may learn {fact_id}"
                " itself: wait for its end."
            )
        if head_switch.in_progress(store):
            raise WrongStateError(
                "An operation is giving facts their new states, and may change this one: try again"
                " in a moment."
            )
        newest = facts.find_by_question(store.connection, fact.question)
        if newest is not None and newest.id != fact_id and newest.state not in GIVEN_UP:
            raise WrongStateError(
                f"Fact {newest.id} is newer, and answers the same question: forget it first, or"
                " leave this one as it is."
            )
        before, at = store.last_event_sequence(), store.now()
        _move_to_the_end(store.connection, fact, at)
        store.emit(EventKind.REQUEUED, at, fact_id=fact_id, message=f"it was {fact.state}")
        return store.fact(fact_id), before


def _was_held(connection: Connection, fact: Fact) -> bool:
    """Whether weights that a rollback may serve again hold the fact at its current position."""
    found = connection.execute(
        "SELECT 1 FROM updates WHERE fact_id = ?"
        " UNION ALL SELECT 1 FROM relearned WHERE position = ? AND verdict IN ('learned', 'known')"
        " UNION ALL SELECT 1 FROM events WHERE fact_id = ? AND kind IN ('learned', 'known')"
        " LIMIT 1",
        [fact.id, fact.position, fact.id],
    )
    return bool(found)


def _move_to_the_end(connection: Connection, fact: Fact, at: datetime) -> None:
    connection.execute("PRAGMA defer_foreign_keys = ON")  # until this transaction ends
    [row] = connection.execute(
        "UPDATE facts SET position = (SELECT max(position) + 1 FROM facts), state = 'queued',"
        " failed_attempts = 0, reason = '', updated_at = ? WHERE id = ? RETURNING position",
        [write_time(at), fact.id],
    )
    for table in ("relearned", "traces"):
        connection.execute(
            f"UPDATE {table} SET position = ? WHERE position = ?", [row["position"], fact.position]
        )
