"""The states that facts will have after a rollback, written down before the head moves.

They take long to find for a large memory. The switch of states (see `memory_store.head_switch`)
then only copies them.
"""

from __future__ import annotations

from collections.abc import Sequence

from memory_store import events, operations
from memory_store.connection import Connection
from memory_store.encoding import write_json
from memory_store.lines import Line
from memory_store.store import MemoryStore
from memory_store.verdicts import verdicts_on
from memory_store.vocabulary import FactState, Operation, Transition

# Facts of one call.
FACTS_AT_ONCE = 125


def write_down(
    store: MemoryStore,
    operation: Operation,
    line: Line,
    wanted: Line | None = None,
    after: int = 0,
) -> int:
    """Writes down what some facts will be after a rollback.

    Nothing may be learned between the first call and the end of the switch.

    Args:
        store: the memory.
        operation: the rollback.
        line: of the version that will be served.
        wanted: of the version that was asked for, if another one is served because that one cannot
            be reached: what it held is learned again.
        after: position of the last fact that is written down.

    Returns:
        Position of the last fact that is written down now; 0 if there are no more.

    Raises:
        OperationEndedError: the rollback was cancelled.
    """
    with store.transaction():
        operations.require(store, operation.id, Transition.GROW)
        rows = store.connection.execute(
            "SELECT position, id, state, question = '' AS erased FROM facts WHERE position > ?"
            " ORDER BY position LIMIT ?",
            [after, FACTS_AT_ONCE],
        )
        waiting = ("queued", "learning")
        kept_ids = [str(row["id"]) for row in rows if not row["erased"]]
        again = _queued_again_since(store.connection, operation.after_event, kept_ids)
        tried = [
            row
            for row in rows
            if not row["erased"] and (row["state"] not in waiting or row["id"] in again)
        ]
        ids = [str(row["id"]) for row in tried]
        verdicts = verdicts_on(store, line, ids)
        lost = verdicts_on(store, wanted, ids).keys() - verdicts.keys() if wanted else set()
        since = _tried_since(store.connection, operation.after_event, ids) - again
        undone = (FactState.FORGOTTEN, f"rolled back to version {operation.to_version}")
        anew = (FactState.QUEUED, f"learned again from version {line.end}")
        kept = (FactState.QUEUED, f"kept by the rollback to version {operation.to_version}")
        written: list[list[object]] = []
        for row in tried:
            state, reason = verdicts.get(row["id"], undone)
            if row["id"] in lost:
                state, reason = anew
            elif row["id"] in since and row["state"] != FactState.FORGOTTEN:
                state, reason = kept
            if state is FactState.QUEUED and row["state"] in waiting:
                continue
            if row["state"] != FactState.FORGOTTEN or not (
                state is FactState.FORGOTTEN or operations.is_to_be_forgotten(store, row["id"])
            ):
                written.append([operation.id, row["position"], state.value, reason])
        # What an attempt that was cut off wrote down may be about weights out of reach now.
        store.connection.execute(
            "DELETE FROM restated WHERE operation_id = ? AND position > ? AND position <= ?",
            [operation.id, after, int(rows[-1]["position"]) if rows else 2**62],
        )
        store.connection.execute(
            "INSERT INTO restated (operation_id, position, state, reason)"
            " SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?)",
            [write_json(written)],
        )
        return int(rows[-1]["position"]) if rows else 0


def _tried_since(connection: Connection, sequence: int, fact_ids: Sequence[str]) -> set[str]:
    """Those of some facts whose attempt ended after an event."""
    rows = connection.execute(
        "SELECT DISTINCT fact_id FROM json_each(?) CROSS JOIN events ON events.fact_id = value"
        " AND sequence > ? WHERE kind IN ('learned', 'known', 'resisted', 'quarantined')",
        [write_json(list(fact_ids)), sequence],
    )
    return {row["fact_id"] for row in rows}


def _queued_again_since(connection: Connection, sequence: int, fact_ids: Sequence[str]) -> set[str]:
    """Those of some facts that a rollback undoes though they were queued again since its request.

    A start that could not reach the head, or another operation, queued them, not a person.
    """
    again = events.queued_again_since("value", "?2")
    rows = connection.execute(
        f"SELECT value AS fact_id FROM json_each(?1) WHERE {again}",
        [write_json(list(fact_ids)), sequence],
    )
    return {row["fact_id"] for row in rows}
