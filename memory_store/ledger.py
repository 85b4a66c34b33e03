"""The ledger: one row for every update of the weights, in order, never changed or deleted."""

from __future__ import annotations

from datetime import datetime

from memory_store.connection import Connection, Row
from memory_store.encoding import (
    read_environment,
    read_steps,
    read_time,
    write_json,
    write_steps,
    write_time,
)
from memory_store.errors import LedgerConflictError
from memory_store.records import NewUpdate, Update


def newest_version(connection: Connection) -> int:
    """Version of the newest row; 0 if the ledger is empty, which is the base model."""
    rows = connection.execute("SELECT coalesce(max(model_version), 0) AS version FROM updates")
    return int(rows[0]["version"])


def append(connection: Connection, update: NewUpdate, at: datetime) -> Update:
    """Adds the next row.

    Raises:
        LedgerConflictError: the update was not made on the newest version.
    """
    newest = newest_version(connection)
    if update.base_version != newest:
        raise LedgerConflictError(
            f"The update for fact {update.fact_id} was made on model version "
            f"{update.base_version}, but the ledger is at {newest}. Bring the learner to version "
            f"{newest} and learn the fact again."
        )
    rows = connection.execute(
        "INSERT INTO updates (model_version, fact_id, steps, digest_before, digest_after,"
        " algorithm, environment, seconds, applied_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING *",
        [
            newest + 1,
            update.fact_id,
            write_steps(update.steps),
            update.digest_before,
            update.digest_after,
            update.algorithm,
            write_json(dict(update.environment)),
            update.seconds,
            write_time(at),
        ],
    )
    return _update(rows[0])


def find(connection: Connection, model_version: int) -> Update | None:
    """The row that led to this version, if there is one."""
    rows = connection.execute("SELECT * FROM updates WHERE model_version = ?", [model_version])
    return _update(rows[0]) if rows else None


def listing(connection: Connection, after_version: int, limit: int) -> list[Update]:
    """At most `limit` rows after a version, in the order to replay them."""
    rows = connection.execute(
        "SELECT * FROM updates WHERE model_version > ? ORDER BY model_version LIMIT ?",
        [after_version, limit],
    )
    return [_update(row) for row in rows]


def of_fact(connection: Connection, fact_id: str) -> list[Update]:
    """The rows of one fact, oldest first."""
    rows = connection.execute(
        "SELECT * FROM updates WHERE fact_id = ? ORDER BY model_version", [fact_id]
    )
    return [_update(row) for row in rows]


def _update(row: Row) -> Update:
    return Update(
        model_version=row["model_version"],
        fact_id=row["fact_id"],
        steps=read_steps(row["steps"]),
        digest_before=row["digest_before"],
        digest_after=row["digest_after"],
        algorithm=row["algorithm"],
        environment=read_environment(row["environment"]),
        seconds=row["seconds"],
        applied_at=read_time(row["applied_at"]),
    )
