"""A memory that lives as long as the process: for notebooks and experiments."""

from __future__ import annotations

from pathlib import Path

from memory_store.connection import IN_MEMORY
from memory_store.store import MemoryStore


def open_in_memory(copy_of: Path | None = None) -> MemoryStore:
    """A store without a file; nothing in it outlasts the process unless `backup` writes it.

    Args:
        copy_of: the database file to begin with, which is only read; None: an empty memory.

    Raises:
        StoreUnusableError: the file cannot be read, or is of another release.
    """
    store = MemoryStore.open(IN_MEMORY)
    if copy_of is not None:
        with MemoryStore.open(copy_of, read_only=True) as saved:
            saved.connection.copy_to(store.connection)
    return store
