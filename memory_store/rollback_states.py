"""The states that facts will have after a rollback, written down before the head moves.

They take long to find for a large memory. The switch of states (see `memory_store.head_switch`)
then only copies them.
"""

from __future__ import annotations

from collections.abc import Sequence

from memory_store import events, operations
from memory_store.connection import Connection, Row
from memory_store.encoding import write_json
from memory_store.lines import Line
from memory_store.store import MemoryStore
from memory_store.verdicts import verdicts_on
from memory_store.vocabulary import FactState, Operation, Transition

# Facts of one call.
FACTS_AT_ONCE = 125
# States of facts that have not been tried since they were queued.
WAITING = (FactState.QUEUED, FactState.LEARNING)


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
        last = int(rows[-1]["position"]) if rows else 0
        # What an attempt that was cut off wrote down may be about weights out of reach now.
        store.connection.execute(
            "DELETE FROM restated WHERE operation_id = ? AND position > ? AND position <= ?",
            [operation.id, after, last or 2**62],
        )
        store.connection.execute(
            "INSERT INTO restated (operation_id, position, state, reason)"
            " SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?)",
            [write_json(_new_states(store, operation, line, wanted, rows))],
        )
        return last


def _new_states(
    store: MemoryStore, operation: Operation, line: Line, wanted: Line | None, rows: Sequence[Row]
) -> list[tuple[int, int, str, str]]:
    """Operation, position, state and reason of each of some facts whose state is written down."""
    facts = {str(row["id"]): row for row in rows if not row["erased"]}
    again = _queued_again_since(store.connection, operation.after_event, list(facts))
    tried = [id_ for id_, row in facts.items() if row["state"] not in WAITING or id_ in again]
    since = _tried_since(store.connection, operation.after_event, tried) - again
    verdicts = verdicts_on(store, line, tried)
    lost = verdicts_on(store, wanted, tried).keys() - verdicts.keys() if wanted else set()
    found = []
    for fact_id in tried:
        before = FactState(facts[fact_id]["state"])
        if fact_id in lost:
            state, reason = FactState.QUEUED, f"learned again from version {line.end}"
        elif fact_id in since and before is not FactState.FORGOTTEN:
            state, reason = (
                FactState.QUEUED,
                f"kept by the rollback to version {operation.to_version}",
            )
        else:
            undone = (FactState.FORGOTTEN, f"rolled back to version {operation.to_version}")
            state, reason = verdicts.get(fact_id, undone)
        stays = before in WAITING and state is FactState.QUEUED
        if before is FactState.FORGOTTEN:
            stays = state is before or operations.is_to_be_forgotten(store, fact_id)
        if not stays:
            found.append((operation.id, facts[fact_id]["position"], state.value, reason))
    return found


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
