"""Copies of a database from before a migration, for going back to the release before it.

A migration cannot be undone, and the release before it refuses the migrated database. The copy is
the way back, for what had been accepted by then:

    memory.db
    memory.db.before-0010_some_change

Only the copy from before the last migration is kept, for `KEPT_DAYS`. An erase removes it, because
it has the text.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

from memory_store.connection import IN_MEMORY, Connection
from memory_store.errors import StoreUnusableError

KEPT_DAYS = 30


def copies_of(database: Path) -> list[Path]:
    """The copies of a database file, including unfinished ones."""
    return sorted(database.parent.glob(f"{database.name}.before-*"))


def keep_copy(connection: Connection, before: str) -> None:
    """Copies a database, and removes older copies. The copy is durable on return.

    Args:
        connection: to it, outside a transaction.
        before: name of the first migration to apply.

    Raises:
        StoreUnusableError: the copy cannot be written; nothing was changed.
    """
    if connection.path == IN_MEMORY:
        return
    older = copies_of(connection.path)
    copy = connection.path.with_name(f"{connection.path.name}.before-{before}")
    unfinished = copy.with_name(f"{copy.name}.unfinished")
    try:
        unfinished.unlink(missing_ok=True)
        connection.backup(unfinished)
        _flush(unfinished)
        unfinished.rename(copy)
        _flush(copy.parent)
    except (OSError, StoreUnusableError) as error:
        unfinished.unlink(missing_ok=True)
        raise StoreUnusableError(
            f"The schema of {connection.path} is to be changed by this release, but the copy to"
            f" go back to cannot be written: {error} Make room for it; nothing was changed."
        ) from error
    for path in older:
        if path not in (copy, unfinished):
            path.unlink(missing_ok=True)


def remove_copies(database: Path, *, older_than: datetime | None = None) -> list[Path]:
    """Removes the copies of a database file.

    Args:
        database: the file.
        older_than: keep newer ones; None removes all.

    Returns:
        The removed files.

    Raises:
        OSError: one cannot be removed.
    """
    removed = []
    for path in copies_of(database):
        made = path.stat().st_mtime
        if older_than is None or made < older_than.timestamp():
            path.unlink()
            removed.append(path)
    return removed


def remove_outdated(database: Path, now: datetime) -> list[Path]:
    """Removes outdated copies; see `remove_copies`."""
    return remove_copies(database, older_than=now - timedelta(days=KEPT_DAYS))


def _flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
