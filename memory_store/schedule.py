"""The schedule of reviews: intervals that grow while a fact is found to be held.

An interval is a number of updates and a time, and ends with the first of them: weights that change
much are reviewed often, and those of a quiet memory now and then. Updates are counted by the
*depth* of a version, the number of updates on its lineage, so that a new branch does not make
everything due at once.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from memory_store import ledger
from memory_store.connection import Connection, SqlValue
from memory_store.encoding import write_time
from memory_store.tables import SAMPLED

FIRST_UPDATES, MOST_UPDATES = 8, 1024
FIRST_TIME, LONGEST_TIME = timedelta(minutes=10), timedelta(days=7)
# After this many doublings, both are at their maximum.
_DOUBLINGS = 10


def interval(times_held: int) -> tuple[int, timedelta]:
    """Updates and time to the next review, after `times_held` reviews that found the fact held."""
    factor = 2 ** min(times_held, _DOUBLINGS)
    return min(FIRST_UPDATES * factor, MOST_UPDATES), min(FIRST_TIME * factor, LONGEST_TIME)


def begin(connection: Connection, position: int, at: datetime, taught: int | None = None) -> None:
    """Restarts a fact with the first interval.

    Args:
        connection: of the store.
        position: of the fact.
        at: the time now.
        taught: the version that taught it; None if an earlier one did, and the served line may
            have become shorter since.
    """
    head = ledger.depth(connection, ledger.head_version(connection))
    if taught is None:
        since, bound = "min(coalesce(held_since, ?), ?)", [head, head]
    else:
        since, bound = "?", [ledger.depth(connection, taught)]
    updates, time = interval(0)
    connection.execute(
        "UPDATE facts SET times_held = 0, due_depth = ?, due_at = ?,"
        f" held_since = {since} WHERE position = ?",
        [head + updates, write_time(at + time), *bound, position],
    )


def go_on(connection: Connection, position: int, at: datetime) -> None:
    """Doubles the interval of a fact that a review found held."""
    head = ledger.depth(connection, ledger.head_version(connection))
    times_held = 1 + connection.number(
        "SELECT times_held FROM facts WHERE position = ?", [position]
    )
    updates, time = interval(times_held)
    connection.execute(
        "UPDATE facts SET times_held = ?, due_depth = ?, due_at = ? WHERE position = ?",
        [times_held, head + updates, write_time(at + time), position],
    )


def postpone(connection: Connection, position: int, at: datetime) -> None:
    """Postpones a fact by the first interval while its review runs."""
    head = ledger.depth(connection, ledger.head_version(connection))
    updates, time = interval(0)
    connection.execute(
        "UPDATE facts SET due_depth = ?, due_at = ? WHERE position = ?",
        [head + updates, write_time(at + time), position],
    )


def make_due(connection: Connection, position: int, at: datetime) -> None:
    """Makes a fact due whose review did not take place."""
    connection.execute("UPDATE facts SET due_at = ? WHERE position = ?", [write_time(at), position])


def age(connection: Connection, position: int) -> int:
    """Updates since the served weights were taught this fact."""
    head = ledger.depth(connection, ledger.head_version(connection))
    since = connection.number("SELECT held_since FROM facts WHERE position = ?", [position])
    return max(0, head - since)


def next_due(connection: Connection, now: datetime) -> str | None:
    """Id of the fact that is due longest, by updates or else by time; None if none is due."""
    head = ledger.depth(connection, ledger.head_version(connection))
    # Without the hint, SQLite searches by state and sorts all that it finds.
    bounds: tuple[tuple[str, str, SqlValue], ...] = (
        ("facts_due_by_updates", "due_depth", head),
        ("facts_due_by_time", "due_at", write_time(now)),
    )
    for index, column, bound in bounds:
        row = connection.first(
            f"SELECT id FROM facts INDEXED BY {index} WHERE {SAMPLED} AND {column} <= ?"
            f" ORDER BY {column}, position LIMIT 1",
            [bound],
        )
        if row:
            return str(row["id"])
    # No interval is longer, so the clock was set back.
    row = connection.first(
        f"SELECT id FROM facts INDEXED BY facts_due_by_time WHERE {SAMPLED} AND due_at > ?"
        " ORDER BY due_at DESC, position DESC LIMIT 1",
        [write_time(now + LONGEST_TIME)],
    )
    return str(row["id"]) if row else None
