"""Events: what happened, in order, for those who watch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from memory_store.connection import Connection, Row
from memory_store.encoding import read_learning, read_time, write_json, write_learning, write_time
from memory_store.records import Event, EventKind, Learning


def insert(
    connection: Connection,
    kind: EventKind,
    at: datetime,
    *,
    model_version: int,
    fact_id: str = "",
    message: str = "",
    learning: Learning | None = None,
) -> Event:
    """Stores an event under the next sequence number.

    Sequence numbers have no gaps: they are given inside the transaction, and go with it.

    Raises:
        ValueError: the kind is `STEP`, which is passing and never stored.
    """
    if kind is EventKind.STEP:
        raise ValueError("Step events are passing: send them to watchers, do not store them.")
    rows = connection.execute(
        "INSERT INTO events (kind, fact_id, model_version, message, learning, at)"
        " VALUES (?, ?, ?, ?, ?, ?) RETURNING *",
        [kind.value, fact_id, model_version, message, write_learning(learning), write_time(at)],
    )
    return _event(rows[0])


def last_sequence(connection: Connection) -> int:
    """Sequence number of the newest event; 0 if there is none."""
    rows = connection.execute("SELECT coalesce(max(sequence), 0) AS sequence FROM events")
    return int(rows[0]["sequence"])


def listing(
    connection: Connection, after_sequence: int, limit: int, fact_ids: Sequence[str]
) -> list[Event]:
    """At most `limit` events after a sequence number, in order; of some facts, or all if empty."""
    if not fact_ids:
        rows = connection.execute(
            "SELECT * FROM events WHERE sequence > ? ORDER BY sequence LIMIT ?",
            [after_sequence, limit],
        )
        return [_event(row) for row in rows]
    # A fact has a handful of events, so reading and sorting all of theirs is little.
    rows = connection.execute(
        "SELECT * FROM events WHERE fact_id IN (SELECT value FROM json_each(?)) AND sequence > ?"
        " ORDER BY sequence LIMIT ?",
        [write_json(list(fact_ids)), after_sequence, limit],
    )
    return [_event(row) for row in rows]


def _event(row: Row) -> Event:
    return Event(
        sequence=row["sequence"],
        kind=EventKind(row["kind"]),
        at=read_time(row["at"]),
        fact_id=row["fact_id"],
        model_version=row["model_version"],
        message=row["message"],
        learning=read_learning(row["learning"]),
    )
