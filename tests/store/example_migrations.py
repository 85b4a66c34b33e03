"""Migrations of two releases to come, for tests of how a schema is changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlite_utils import Database

from memory_store import schema


def _add_notes(database: Database) -> None:
    """A new column, filled for the facts that are there."""
    database.execute("ALTER TABLE facts ADD COLUMN note TEXT NOT NULL DEFAULT ''")
    database.execute("UPDATE facts SET note = 'from ' || accepted_at")


def _count_by_day(database: Database) -> None:
    """A new table, made of rows that are there."""
    database.execute("CREATE TABLE days (day TEXT PRIMARY KEY, facts INTEGER NOT NULL) STRICT")
    database.execute(
        "INSERT INTO days SELECT substr(accepted_at, 1, 10), count(*) FROM facts GROUP BY 1"
    )


EXAMPLES: tuple[schema.Migration, ...] = (
    ("9000_notes", _add_notes),
    ("9001_days", _count_by_day),
)
NAMES = tuple(name for name, _ in EXAMPLES)


@contextmanager
def next_release(count: int = len(EXAMPLES)) -> Iterator[tuple[str, ...]]:
    """This code is the release that has so many of the examples; their names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "IN_ORDER", (*schema.IN_ORDER, *EXAMPLES[:count]))
        yield NAMES[:count]
