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
from memory_store.records import (
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


def oldest_open(connection: Connection) -> Operation | None:
    """The next one to be done, or to be resumed."""
    rows = connection.execute(
        "SELECT * FROM operations WHERE state IN ('pending', 'running') ORDER BY id LIMIT 1"
    )
    return _operation(rows[0]) if rows else None


def newest_of_fact(connection: Connection, fact_id: str) -> Operation | None:
    """The last request to forget this fact."""
    rows = connection.execute(
        "SELECT * FROM operations WHERE fact_id = ? ORDER BY id DESC LIMIT 1", [fact_id]
    )
    return _operation(rows[0]) if rows else None


def advance(
    connection: Connection, operation_id: int, branch_version: int, position: int | None = None
) -> Operation:
    """Notes how far the branch is; the operation is running from now on."""
    rows = connection.execute(
        "UPDATE operations SET state = 'running', branch_version = ?,"
        " position = coalesce(?, position) WHERE id = ? RETURNING *",
        [branch_version, position, operation_id],
    )
    return _operation(rows[0])


def begin_anew(connection: Connection, operation_id: int | None = None) -> None:
    """Drops what an open operation has built (None: all of them), so that it begins again.

    Not one whose result is served already, of which only the clean-up is left.
    """
    rows = connection.execute(
        "UPDATE operations SET state = 'pending', branch_version = NULL, position = coalesce("
        "(SELECT facts.position FROM facts WHERE facts.id = fact_id), 0)"
        " WHERE state IN ('pending', 'running') AND proof IS NULL AND id = coalesce(?, id)"
        " RETURNING id",
        [operation_id],
    )
    for row in rows:
        for table in ("relearned", "reviewed_again"):
            connection.execute(f"DELETE FROM {table} WHERE operation_id = ?", [row["id"]])


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
        state=OperationState(row["state"]),
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
    )
