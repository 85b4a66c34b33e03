"""Counts the attempts of an operation to repeat a fact or a review, before they begin.

So an attempt that kills the whole server counts too. Only the newest is stored, because an
operation repeats one thing at a time.
"""

from __future__ import annotations

import json

from memory_store import meta
from memory_store.store import MemoryStore

_ATTEMPT = "attempt"


def begin_attempt(store: MemoryStore, operation_id: int, what: tuple[str, int]) -> int:
    """Records that an attempt begins; returns the number of attempts so far, including this one.

    Args:
        store: the memory.
        operation_id: of the operation.
        what: the thing to repeat: `fact` and its position, or `review` and its id.
    """
    with store.transaction():
        name = [operation_id, *what]
        last, count = _last(store)
        begun = count + 1 if last == name else 1
        meta.note(store.connection, _ATTEMPT, json.dumps([name, begun]))
        return begun


def discount_attempt(store: MemoryStore) -> None:
    """Does not count the newest attempt, which has ended."""
    with store.transaction():
        last, count = _last(store)
        meta.note(store.connection, _ATTEMPT, json.dumps([last, max(count - 1, 0)]))


def _last(store: MemoryStore) -> tuple[list[int | str], int]:
    noted = meta.noted(store.connection, _ATTEMPT)
    if noted is None:
        return [], 0
    last, count = json.loads(noted)
    return last, count
