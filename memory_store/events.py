"""Events: what happened, in order, for watchers.

The findings of an attempt are stored with its fact. The event of the fact's last attempt refers to
them with the JSON value null. Before the fact gets new findings, a trigger copies the old ones into
the event.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from memory_store.connection import Connection
from memory_store.encoding import (
    read_learning,
    read_record,
    read_time,
    write_json,
    write_learning,
    write_time,
)
from memory_store.vocabulary import Event, EventKind, Learning

_ROW = (
    "events.*, iif(events.learning = 'null', (SELECT learning FROM facts WHERE id = fact_id),"
    " events.learning) AS found"
)


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
    """Stores an event under the next sequence number. They have no gaps.

    Raises:
        ValueError: the kind is `STEP` or `GAP`, which are never stored.
    """
    if kind in (EventKind.STEP, EventKind.GAP):
        raise ValueError(f"A {kind} is passing: send it to watchers, do not store it.")
    written = write_learning(learning)
    rows = connection.execute(
        "INSERT INTO events (kind, fact_id, model_version, message, learning, at)"
        " VALUES (?, ?, ?, ?, iif(EXISTS (SELECT 1 FROM facts WHERE id = ? AND learning = ?),"
        " 'null', ?), ?) RETURNING sequence",
        [kind.value, fact_id, model_version, message, fact_id, written, written, write_time(at)],
    )
    return Event(
        sequence=rows[0]["sequence"],
        kind=kind,
        at=at,
        fact_id=fact_id,
        model_version=model_version,
        message=message,
        learning=learning,
    )


def last_sequence(connection: Connection) -> int:
    """Sequence number of the newest event; 0 if there is none."""
    return connection.number("SELECT max(sequence) FROM events")


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


def listing(
    connection: Connection, after_sequence: int, limit: int, fact_ids: Sequence[str]
) -> list[Event]:
    """At most `limit` events after a sequence number, in order; of some facts, or all if empty."""
    # A fact has a handful of events, so reading and sorting all of theirs is little.
    chosen = "fact_id IN (SELECT value FROM json_each(?)) AND" if fact_ids else ""
    rows = connection.execute(
        f"SELECT {_ROW} FROM events WHERE {chosen} sequence > ? ORDER BY sequence LIMIT ?",
        [*([write_json(list(fact_ids))] if fact_ids else ()), after_sequence, limit],
    )
    return [
        read_record(
            Event,
            row,
            kind=EventKind(row["kind"]),
            at=read_time(row["at"]),
            learning=read_learning(row["found"]),
            step=None,
            step_number=0,
        )
        for row in rows
    ]
