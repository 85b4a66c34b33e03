"""Serving an earlier version because later ones cannot be reached; what followed is queued again.

The ledger keeps the rows that cannot be replayed, as history. A row of the kind `rollback` moves
the head to the version that can be reached. The facts that only later versions held are learned
again like any other, in their order, by the algorithm of today.
"""

from __future__ import annotations

from memory_store import head_switch, ledger, operations
from memory_store.lines import line_of
from memory_store.store import MemoryStore
from memory_store.vocabulary import LedgerKind, NewUpdate, Update


def start_over(store: MemoryStore, end: NewUpdate, why: str) -> Update:
    """Moves the head to an earlier version, and begins to queue again what was learned after it.

    The states of a large memory change in further steps: see `memory_store.head_switch`. Facts that
    were forgotten stay so. Operations that have begun begin anew: what they built stands on rows
    that may be out of reach, too.

    Args:
        store: the memory.
        end: the row that moves the head, without steps, on the version that is reached.
        why: for the event, a clause.

    Returns:
        The row.
    """
    with store.transaction():
        row = ledger.append(store.connection, LedgerKind.ROLLBACK, end, store.now())
        operations.begin_anew(store.connection)
        line = line_of(store.connection, end.base_version)
        head_switch.begin_fresh_start(store, row, line, why)
        return row
