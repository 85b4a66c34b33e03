"""What a start adds to the ledger where the recorded weights do not come out any more.

Either weights that differ are accepted as they are (`record_drift`). Or an earlier version is
served because later ones cannot be reached (`start_over`): the ledger keeps the rows that cannot be
replayed, as history, and a row of the kind `rollback` moves the head. The facts that only later
versions held are learned again like any other, in their order, by the algorithm of today.
"""

from __future__ import annotations

from memory_store import head_switch, ledger, operations, undo
from memory_store.lines import line_of
from memory_store.store import MemoryStore
from memory_store.vocabulary import EventKind, LedgerKind, NewUpdate, Phase, Update


def start_over(store: MemoryStore, end: NewUpdate, why: str) -> Update:
    """Moves the head to an earlier version, and begins to queue what was learned after it.

    The states of a large memory change in further steps: see `memory_store.head_switch`. Forgotten
    facts stay forgotten. Operations that have begun start over: what they built is based on rows
    that may be out of reach too.

    Args:
        store: the memory.
        end: the row that moves the head, without steps, on the version that is reached.
        why: for the event, a clause.

    Returns:
        The row.
    """
    with store.transaction():
        row = ledger.append(store.connection, LedgerKind.ROLLBACK, end, store.now())
        for operation in operations.not_served(store):
            if operation.phase is Phase.BUILDING:
                undo.begin_anew(store, operation.id)
        line = line_of(store.connection, end.base_version)
        head_switch.begin_fresh_start(store, row, line, why)
        return row


def record_drift(store: MemoryStore, end: NewUpdate) -> Update:
    """Notes that the operator accepted weights that differ from the recorded ones."""
    with store.transaction():
        at = store.now()
        row = ledger.append(store.connection, LedgerKind.DRIFT, end, at)
        store.emit(
            EventKind.DRIFT_ACCEPTED,
            at,
            message=f"{end.digest_before[:12]} recorded, {end.digest_after[:12]} now",
        )
        return row
