"""Operations: requests to forget a fact or to roll back, durable before they begin.

An operation builds a branch of the ledger beside the served one and moves the head to it in its
last transaction. What is on the branch already is stored as it comes, so that a crash resumes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from memory_store.connection import Connection, Row
from memory_store.encoding import (
    read_learning,
    read_time,
    write_json,
    write_learning,
    write_time,
)
from memory_store.errors import FactNotFoundError, OperationEndedError
from memory_store.vocabulary import (
    FactState,
    Learning,
    Operation,
    OperationKind,
    OperationState,
)


def insert(
    connection: Connection,
    kind: OperationKind,
    at: datetime,
    *,
    fact_id: str = "",
    erase: bool = False,
    to_version: int = 0,
    position: int = 0,
) -> Operation:
    """Stores a new request."""
    rows = connection.execute(
        "INSERT INTO operations (kind, state, fact_id, erase, to_version, position, requested_at,"
        " after_event) SELECT ?, 'pending', ?, ?, ?, ?, ?, coalesce(max(sequence), 0) FROM events"
        " RETURNING *",
        [kind.value, fact_id or None, int(erase), to_version, position, write_time(at)],
    )
    return _operation(rows[0])


def find(connection: Connection, operation_id: int) -> Operation | None:
    """The operation with this id, if there is one."""
    rows = connection.execute("SELECT * FROM operations WHERE id = ?", [operation_id])
    return _operation(rows[0]) if rows else None


def get(connection: Connection, operation_id: int) -> Operation:
    """The operation with this id.

    Raises:
        FactNotFoundError: there is none.
    """
    operation = find(connection, operation_id)
    if operation is None:
        raise FactNotFoundError(f"There is no operation {operation_id}.")
    return operation


def require_open(connection: Connection, operation_id: int) -> Operation:
    """The operation with this id, which is not over.

    Raises:
        FactNotFoundError: there is none.
        OperationEndedError: it is over.
    """
    operation = get(connection, operation_id)
    if operation.state not in (OperationState.PENDING, OperationState.RUNNING):
        raise OperationEndedError(f"Operation {operation_id} is over: {operation.state}.")
    return operation


def oldest_open(connection: Connection) -> Operation | None:
    """The next one to be done, or to be resumed."""
    rows = connection.execute(
        "SELECT * FROM operations WHERE state IN ('pending', 'running') ORDER BY id LIMIT 1"
    )
    return _operation(rows[0]) if rows else None


def oldest_not_served(connection: Connection) -> Operation | None:
    """The next one to be done, or to be resumed, whose result is not served yet."""
    rows = connection.execute(
        "SELECT * FROM operations WHERE state IN ('pending', 'running') AND proof IS NULL"
        " ORDER BY id LIMIT 1"
    )
    return _operation(rows[0]) if rows else None


def open_erasures(connection: Connection) -> list[Operation]:
    """Those that erase a fact, and whose result is not served yet, in order."""
    rows = connection.execute(
        "SELECT * FROM operations WHERE state IN ('pending', 'running') AND erase = 1"
        " AND proof IS NULL ORDER BY id"
    )
    return [_operation(row) for row in rows]


def served_and_open(connection: Connection) -> list[Operation]:
    """Those whose result is served, and that are not over, oldest first."""
    rows = connection.execute(
        "SELECT * FROM operations WHERE state IN ('pending', 'running') AND proof IS NOT NULL"
        " ORDER BY id"
    )
    return [_operation(row) for row in rows]


def note_message(connection: Connection, operation_id: int, message: str) -> None:
    """Keeps how it stands, for people."""
    connection.execute("UPDATE operations SET message = ? WHERE id = ?", [message, operation_id])


def to_be_forgotten(connection: Connection) -> list[str]:
    """Ids of the facts that were forgotten or are to be, and were not given up."""
    rows = connection.execute(
        "SELECT DISTINCT fact_id FROM operations AS asked WHERE kind = 'forget'"
        " AND state <> 'failed' AND id = (SELECT max(id) FROM operations"
        "  WHERE operations.fact_id = asked.fact_id) ORDER BY fact_id"
    )
    return [row["fact_id"] for row in rows]


def queued_again_since(fact_id: str, sequence: str) -> str:
    """SQL condition: a fact had been tried, not queued, at an event, and was queued again since.

    Args:
        fact_id: SQL expression of the fact's id.
        sequence: SQL expression of the event's sequence.
    """
    of_fact = f"SELECT kind FROM events WHERE events.fact_id = {fact_id} AND sequence"
    tried = "('learned', 'known', 'resisted', 'quarantined')"
    return (
        f"(EXISTS ({of_fact} > {sequence} AND kind = 'requeued')"
        f" AND ({of_fact} <= {sequence} AND (kind = 'requeued' OR kind IN {tried})"
        f" ORDER BY sequence DESC LIMIT 1) IN {tried})"
    )


def newest_of_fact(connection: Connection, fact_id: str) -> Operation | None:
    """The last request to forget this fact."""
    rows = connection.execute(
        "SELECT * FROM operations WHERE fact_id = ? ORDER BY id DESC LIMIT 1", [fact_id]
    )
    return _operation(rows[0]) if rows else None


def begin(
    connection: Connection,
    operation_id: int,
    base: int,
    first_position: int,
    first_review: int,
) -> Operation:
    """Notes where the branch begins; the operation is running from now on."""
    rows = connection.execute(
        "UPDATE operations SET state = 'running', branch_version = ?, position = ? - 1,"
        " base_version = ?, first_position = ?, first_review = ? WHERE id = ? RETURNING *",
        [base, first_position, base, first_position, first_review, operation_id],
    )
    return _operation(rows[0])


def advance(
    connection: Connection, operation_id: int, branch_version: int, position: int | None = None
) -> Operation:
    """Notes how far the branch is, and the fact that was added to it, if one was."""
    rows = connection.execute(
        "UPDATE operations SET branch_version = ?, position = coalesce(?, position),"
        " done = done + (? IS NOT NULL), total = max(total, done + (? IS NOT NULL))"
        " WHERE id = ? RETURNING *",
        [branch_version, position, position, position, operation_id],
    )
    return _operation(rows[0])


def begin_anew(connection: Connection, operation_id: int | None = None) -> None:
    """Drops what an open operation has built (None: all of them), so that it begins again.

    Not one whose result is served already, of which only the clean-up is left. The rows of what it
    had built are removed by `remove_dropped`.
    """
    connection.execute(
        "UPDATE operations SET state = 'pending', branch_version = NULL, base_version = NULL,"
        " first_position = NULL, first_review = 0, never_saw = NULL, done = 0, total = 0, position"
        " = coalesce((SELECT facts.position FROM facts WHERE facts.id = fact_id), 0)"
        " WHERE state IN ('pending', 'running') AND proof IS NULL AND id = coalesce(?, id)",
        [operation_id],
    )


def remove_dropped(connection: Connection, limit: int) -> bool:
    """Removes at most `limit` rows of what operations had built before they were to begin anew.

    Returns:
        Whether more may be left.
    """
    for table, column in (("relearned", "position"), ("reviewed_again", "review_id")):
        key = f"operation_id, {table}.{column}"
        removed = connection.execute(
            f"DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM operations JOIN {table}"
            " ON operation_id = operations.id WHERE state IN ('pending', 'running')"
            " AND branch_version IS NULL LIMIT ?) RETURNING 1",
            [limit],
        )
        if removed:
            return True
    return False


def note_total(connection: Connection, operation_id: int, to_repeat: int) -> None:
    """Notes how many facts are still to be repeated: more may have been learned meanwhile."""
    connection.execute(
        "UPDATE operations SET total = done + ? WHERE id = ?", [to_repeat, operation_id]
    )


def note_never_saw(connection: Connection, operation_id: int, probability: float) -> None:
    """Keeps what was measured where the branch begins."""
    connection.execute(
        "UPDATE operations SET never_saw = ? WHERE id = ?", [probability, operation_id]
    )


def finish(
    connection: Connection,
    operation_id: int,
    state: OperationState,
    at: datetime,
    *,
    message: str,
    proof: Mapping[str, Any] | None = None,
) -> Operation:
    """Ends it, one way or the other."""
    rows = connection.execute(
        "UPDATE operations SET state = ?, message = ?, proof = coalesce(?, proof),"
        " finished_at = ? WHERE id = ?"
        " RETURNING *",
        [
            state.value,
            message,
            None if proof is None else write_json(dict(proof)),
            write_time(at),
            operation_id,
        ],
    )
    return _operation(rows[0])


def cancel(connection: Connection, operation_id: int, at: datetime) -> Operation:
    """Ends it without having changed anything that is served."""
    rows = connection.execute(
        # `cancelled` makes another state of `failed`, which the table's rules do not know.
        "UPDATE operations SET state = 'failed', cancelled = 1, message = 'cancelled',"
        " finished_at = ? WHERE id = ? RETURNING *",
        [write_time(at), operation_id],
    )
    return _operation(rows[0])


def newest(connection: Connection, before_id: int, limit: int) -> list[Operation]:
    """At most `limit` operations, newest first; before an id, or from the newest on if it is 0."""
    rows = connection.execute(
        "SELECT * FROM operations WHERE id < ? ORDER BY id DESC LIMIT ?",
        [before_id or 2**63 - 1, limit],
    )
    return [_operation(row) for row in rows]


def prove(connection: Connection, operation_id: int, proof: Mapping[str, Any]) -> None:
    """Keeps what was measured when the head was moved; cleaning up is left to be done."""
    connection.execute(
        "UPDATE operations SET state = 'running', proof = ? WHERE id = ?",
        [write_json(dict(proof)), operation_id],
    )


def note_relearned(
    connection: Connection,
    operation_id: int,
    position: int,
    verdict: FactState,
    reason: str,
    learning: Learning | None,
    model_version: int,
) -> None:
    """Keeps what became of a fact on the branch, which then was at this version."""
    connection.execute(
        "INSERT INTO relearned (operation_id, position, verdict, reason, learning, model_version)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        [
            operation_id,
            position,
            verdict.value,
            reason,
            write_learning(learning),
            model_version,
        ],
    )


def relearned(
    connection: Connection, operation_id: int
) -> list[tuple[int, FactState, str, Learning | None]]:
    """Position, verdict, reason and findings of each fact on the branch, in order."""
    rows = connection.execute(
        "SELECT * FROM relearned WHERE operation_id = ? ORDER BY position", [operation_id]
    )
    return [
        (row["position"], FactState(row["verdict"]), row["reason"], read_learning(row["learning"]))
        for row in rows
    ]


def _operation(row: Row) -> Operation:
    return Operation(
        id=row["id"],
        kind=OperationKind(row["kind"]),
        state=OperationState.CANCELLED if row["cancelled"] else OperationState(row["state"]),
        fact_id=row["fact_id"] or "",
        erase=bool(row["erase"]),
        to_version=row["to_version"],
        branch_version=row["branch_version"],
        position=row["position"],
        message=row["message"],
        proof=None if row["proof"] is None else json.loads(row["proof"]),
        requested_at=read_time(row["requested_at"]),
        finished_at=None if row["finished_at"] is None else read_time(row["finished_at"]),
        after_event=row["after_event"],
        base_version=row["base_version"],
        first_position=row["first_position"] or 0,
        first_review=row["first_review"],
        never_saw=row["never_saw"],
        done=row["done"],
        total=row["total"],
    )
