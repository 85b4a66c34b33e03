"""Attempts of an operation at repeating a fact or a review, counted before they begin.

So one that takes the whole server with it is counted too. Only the newest is kept: an operation
repeats one thing after the other.
"""

from __future__ import annotations

import json

from memory_store import meta
from memory_store.store import MemoryStore

_ATTEMPT = "attempt"


def begin_attempt(store: MemoryStore, operation_id: int, what: tuple[str, int]) -> int:
    """Notes that an attempt begins; returns how many have begun, this one included.

    Args:
        store: the memory.
        operation_id: of the operation.
        what: is repeated: `fact` and its position, or `review` and its id.
    """
    with store.transaction():
        name = [operation_id, *what]
        last, count = _last(store)
        begun = count + 1 if last == name else 1
        meta.note(store.connection, _ATTEMPT, json.dumps([name, begun]))
        return begun


def discount_attempt(store: MemoryStore) -> None:
    """The newest attempt ended, and is not to be counted."""
    with store.transaction():
        last, count = _last(store)
        meta.note(store.connection, _ATTEMPT, json.dumps([last, max(count - 1, 0)]))


def _last(store: MemoryStore) -> tuple[list[int | str], int]:
    noted = meta.noted(store.connection, _ATTEMPT)
    if noted is None:
        return [], 0
    last, count = json.loads(noted)
    return last, count
