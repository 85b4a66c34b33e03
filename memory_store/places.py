"""Backups and exports that were written outside the data folder."""

from __future__ import annotations

from memory_store.encoding import read_record, read_time, write_time
from memory_store.store import MemoryStore
from memory_store.vocabulary import Place, PlaceKind


def record_place(store: MemoryStore, kind: PlaceKind, path: str, model_version: int) -> None:
    """Records a backup or an export, which may have the text of a fact that is erased later."""
    with store.transaction():
        store.connection.execute(
            "INSERT INTO places (kind, path, model_version, created_at) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (kind, path) DO UPDATE SET"
            " model_version = excluded.model_version, created_at = excluded.created_at",
            [kind.value, path, model_version, write_time(store.now())],
        )


def forget_place(store: MemoryStore, kind: PlaceKind, path: str) -> None:
    """Removes the record of a backup or an export that is gone."""
    with store.transaction():
        store.connection.execute(
            "DELETE FROM places WHERE kind = ? AND path = ?", [kind.value, path]
        )


def list_places(store: MemoryStore) -> list[Place]:
    """Backups and exports, oldest first."""
    rows = store.connection.execute("SELECT * FROM places ORDER BY created_at, path")
    return [
        read_record(
            Place, row, kind=PlaceKind(row["kind"]), created_at=read_time(row["created_at"])
        )
        for row in rows
    ]
