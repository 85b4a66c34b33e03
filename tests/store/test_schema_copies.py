"""H1: a database is copied before its schema is changed, so that there is a way back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from memory_store import schema, schema_copies
from memory_store.connection import IN_MEMORY, Connection
from memory_store.errors import StoreUnusableError
from memory_store.schema_copies import KEPT_DAYS, copies_of, remove_copies, remove_outdated
from memory_store.store import MemoryStore
from tests.store import integrity
from tests.store.builders import new_fact
from tests.store.example_migrations import NAMES, next_release


@pytest.fixture(autouse=True)
def upgraded() -> Iterator[None]:
    """This code is a release that changes the schema twice."""
    with next_release():
        yield


def older_database(path: Path, had: int = 1) -> None:
    """A database that has had so many of the two migrations, with something in it."""
    connection = Connection(path)
    with connection.transaction():
        schema.migrations().apply(connection.database, stop_before=NAMES[had])
        connection.execute("INSERT INTO meta (key, value) VALUES ('model_name', 'tiny')")
    connection.close()


def test_the_copy_is_the_database_of_before(path: Path) -> None:
    older_database(path)
    MemoryStore.open(path).close()
    (copy,) = copies_of(path)
    assert copy.name == f"{path.name}.before-{NAMES[1]}"
    before = Connection(copy, read_only=True)
    assert schema.lacking_migrations(before) == [NAMES[1]]
    assert before.execute("SELECT value FROM meta WHERE key = 'model_name'")
    before.close()
    # And it can be served again, by this release too.
    path.unlink()
    copy.rename(path)
    with MemoryStore.open(path) as store:
        assert integrity.problems(store.connection) == []


def test_what_needs_no_migration_is_not_copied(path: Path) -> None:
    MemoryStore.open(path).close()  # made now
    MemoryStore.open(path).close()
    MemoryStore.open(IN_MEMORY).close()
    assert copies_of(path) == []


def test_only_the_last_change_has_a_copy(path: Path) -> None:
    older_database(path, had=0)
    stale = path.with_name(f"{path.name}.before-8000_long_ago")
    stale.write_text("of a change long ago")
    MemoryStore.open(path).close()
    assert [copy.name for copy in copies_of(path)] == [f"{path.name}.before-{NAMES[0]}"]


def test_without_a_copy_nothing_is_changed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older_database(path)

    def full(self: Connection, target: Path) -> None:
        target.write_text("half")
        raise StoreUnusableError("No space is left.")

    monkeypatch.setattr(Connection, "backup", full)
    with pytest.raises(StoreUnusableError, match="nothing was changed"):
        MemoryStore.open(path)
    assert copies_of(path) == []
    connection = Connection(path, read_only=True)
    assert schema.lacking_migrations(connection) == [NAMES[1]]
    connection.close()


def test_a_database_of_a_newer_release_is_not_copied(path: Path) -> None:
    older_database(path)
    connection = Connection(path)
    connection.execute(
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
        " VALUES ('continual.memory_store', '9999_later', 'now')"
    )
    connection.close()
    with pytest.raises(StoreUnusableError, match="newer release"):
        MemoryStore.open(path)
    assert copies_of(path) == []


@pytest.fixture
def dated(path: Path) -> Iterator[tuple[Path, datetime]]:
    """A copy, and when it was made."""
    older_database(path)
    with MemoryStore.open(path) as store:
        store.teach(new_fact("Sky?"))
        (copy,) = copies_of(path)
        made = datetime(2026, 3, 1, tzinfo=UTC)
        os.utime(copy, (made.timestamp(), made.timestamp()))
        yield copy, made


def test_it_is_kept_for_some_weeks(path: Path, dated: tuple[Path, datetime]) -> None:
    copy, made = dated
    assert remove_outdated(path, made + timedelta(days=KEPT_DAYS)) == []
    assert remove_outdated(path, made + timedelta(days=KEPT_DAYS, seconds=1)) == [copy]
    assert path.exists()


def test_an_erase_removes_it_and_half_of_one(path: Path, dated: tuple[Path, datetime]) -> None:
    copy, _ = dated
    half = copy.with_name(f"{copy.name}.unfinished")
    half.write_text("half")
    assert remove_copies(path) == [copy, half]
    assert schema_copies.copies_of(path) == []
    assert path.exists()
