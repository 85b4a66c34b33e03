"""Backups: copies of a store in use, and what is remembered of them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from memory_store.errors import StoreUnusableError
from memory_store.places import forget_place, list_places, record_place
from memory_store.store import MemoryStore
from memory_store.vocabulary import Place, PlaceKind
from tests.store import integrity
from tests.store.builders import ledger_rows, new_fact, teach_learned


def test_a_backup_of_a_store_in_use_opens_and_is_equal(path: Path, store: MemoryStore) -> None:
    fact = teach_learned(store)
    target = path.with_name("copy.db")
    with MemoryStore.open(path, read_only=True) as reader, store.transaction():
        store.teach(new_fact("not committed yet"))
        reader.connection.backup(target)
    with MemoryStore.open(target) as copy:
        assert integrity.problems(copy.connection) == []
        assert copy.facts() == [fact]
        assert ledger_rows(copy.connection) == ledger_rows(store.connection)
        assert copy.events() == store.events(limit=len(copy.events()))
        assert copy.teach(new_fact("it goes on")).created


def test_a_backup_that_cannot_be_written_says_so(tmp_path: Path, store: MemoryStore) -> None:
    with pytest.raises(StoreUnusableError):
        store.connection.backup(tmp_path / "missing" / "copy.db")
    assert store.teach(new_fact()).created


def test_places_are_remembered_until_they_are_gone(store: MemoryStore) -> None:
    assert list_places(store) == []
    record_place(store, PlaceKind.BACKUP, "/a", 1)
    record_place(store, PlaceKind.EXPORT, "/a", 2)
    record_place(store, PlaceKind.BACKUP, "/a", 3)  # again: the newer one counts
    assert list_places(store) == [
        Place(
            kind=PlaceKind.EXPORT,
            path="/a",
            model_version=2,
            created_at=datetime(2026, 1, 1, 0, 0, 2, tzinfo=UTC),
        ),
        Place(
            kind=PlaceKind.BACKUP,
            path="/a",
            model_version=3,
            created_at=datetime(2026, 1, 1, 0, 0, 3, tzinfo=UTC),
        ),
    ]
    forget_place(store, PlaceKind.BACKUP, "/a")
    assert [place.kind for place in list_places(store)] == [PlaceKind.EXPORT]
