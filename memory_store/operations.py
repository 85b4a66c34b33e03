"""Operations: requests to forget a fact or to roll back, durable before they begin.

An operation builds a branch while the head is served, and moves the head in one transaction. What
is built is stored step by step, so that it resumes after a crash. Only `change` changes a phase.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from memory_store import meta
from memory_store.connection import Row, SqlValue
from memory_store.encoding import read_record, read_time, write_time
from memory_store.errors import FactNotFoundError, OperationEndedError, WrongStateError
from memory_store.paging import decode_page_token, encode_page_token
from memory_store.store import MemoryStore
from memory_store.tables import NOT_SERVED, OPEN, SWITCHED
from memory_store.vocabulary import (
    GIVEN_UP,
    Operation,
    OperationKind,
    OperationState,
    Phase,
    Transition,
)

_WHY_NOT = {
    Phase.REQUESTED: "it has not begun",
    Phase.BUILDING: "what it is to serve is being built",
    Phase.SWITCHED: "its result is served, and only the clean-up is left",
}


# --- Changing -------------------------------------------------------------------------------------


def insert(
    store: MemoryStore,
    kind: OperationKind,
    *,
    fact_id: str = "",
    erase: bool = False,
    to_version: int = 0,
    position: int = 0,
) -> Operation:
    """Stores a new request."""
    rows = store.connection.execute(
        "INSERT INTO operations (kind, state, fact_id, erase, to_version, position, requested_at,"
        " after_event) SELECT ?, 'pending', ?, ?, ?, ?, ?, coalesce(max(sequence), 0) FROM events"
        " RETURNING *",
        [kind.value, fact_id or None, int(erase), to_version, position, write_time(store.now())],
    )
    return _operation(rows[0])


def require(store: MemoryStore, operation_id: int, transition: Transition) -> Operation:
    """The operation with this id, whose phase allows a transition.

    Raises:
        FactNotFoundError: there is none.
        OperationEndedError: it is over.
        WrongStateError: its phase does not allow it.
    """
    operation = get(store, operation_id)
    if operation.phase in transition.sources:
        return operation
    if operation.phase not in _WHY_NOT:
        raise OperationEndedError(f"Operation {operation_id} is {operation.phase} already.")
    why = _WHY_NOT[operation.phase]
    raise WrongStateError(f"Operation {operation_id} cannot {transition.action} now: {why}.")


def change(
    store: MemoryStore, operation_id: int, transition: Transition, **columns: SqlValue
) -> Operation:
    """Takes an operation to its next phase.

    Args:
        store: the memory.
        operation_id: of the request.
        transition: to be made.
        columns: what else changes in its row.

    Raises:
        FactNotFoundError: there is none.
        OperationEndedError: it is over.
        WrongStateError: its phase does not allow it.
    """
    require(store, operation_id, transition)
    target = transition.target
    # The table's rules do not know `cancelled`, which makes another state of `failed`.
    state = OperationState.FAILED if target is Phase.CANCELLED else target.state
    columns |= {"state": state.value, "cancelled": int(target is Phase.CANCELLED)}
    if target not in _WHY_NOT:
        columns["finished_at"] = write_time(store.now())
    return update(store, operation_id, **columns)


def update(store: MemoryStore, operation_id: int, **columns: SqlValue) -> Operation:
    """Changes columns of an operation that have no part in its phase."""
    changes = ", ".join(f"{name} = ?" for name in columns)
    with store.transaction():
        [row] = store.connection.execute(
            f"UPDATE operations SET {changes} WHERE id = ? RETURNING *",
            [*columns.values(), operation_id],
        )
    return _operation(row)


# --- Reading --------------------------------------------------------------------------------------


def get(store: MemoryStore, operation_id: int) -> Operation:
    """The operation with this id.

    Raises:
        FactNotFoundError: there is none.
    """
    found = _where(store, "id = ?", operation_id)
    if not found:
        raise FactNotFoundError(f"There is no operation {operation_id}.")
    return found[0]


def oldest_open(store: MemoryStore) -> Operation | None:
    """The oldest operation that is not over."""
    return next(iter(_where(store, f"{OPEN} ORDER BY id LIMIT 1")), None)


def oldest_not_served(store: MemoryStore) -> Operation | None:
    """The next operation to be begun or resumed."""
    return next(iter(not_served(store, limit=1)), None)


def not_served(store: MemoryStore, limit: int = -1) -> list[Operation]:
    """The operations that are requested or being built, in order; at most `limit` of them."""
    return _where(store, f"{NOT_SERVED} ORDER BY id LIMIT ?", limit)


def erasures_not_served(store: MemoryStore) -> list[Operation]:
    """Those of them that erase a fact."""
    return _where(store, f"{NOT_SERVED} AND erase = 1 ORDER BY id")


def switched(store: MemoryStore) -> list[Operation]:
    """The operations that only have to be cleaned up, in order."""
    return _where(store, f"{SWITCHED} ORDER BY id")


def newest_of_fact(store: MemoryStore, fact_id: str) -> Operation | None:
    """The last request to forget a fact, with its proof once it is served."""
    found = _where(store, "fact_id = ? ORDER BY id DESC LIMIT 1", fact_id)
    return found[0] if found else None


def to_be_forgotten(store: MemoryStore) -> list[str]:
    """Ids of the facts that were forgotten or are to be, and were not given up."""
    rows = store.connection.execute(
        "SELECT DISTINCT fact_id FROM operations AS asked WHERE kind = 'forget'"
        " AND state <> 'failed' AND id = (SELECT max(id) FROM operations"
        "  WHERE operations.fact_id = asked.fact_id) ORDER BY fact_id"
    )
    return [row["fact_id"] for row in rows]


def is_to_be_forgotten(store: MemoryStore, fact_id: str) -> bool:
    """Whether a fact was forgotten or is to be; not if the last request was given up."""
    newest = newest_of_fact(store, fact_id)
    return newest is not None and newest.phase not in GIVEN_UP


def page(
    store: MemoryStore,
    page_size: int,
    page_token: str = "",
    fits: Callable[[Operation], bool] = lambda operation: True,
) -> tuple[list[Operation], str]:
    """A page of operations, newest first, and the token of the next page (empty on the last).

    Args:
        store: the memory.
        page_size: at least 1; limits are the caller's.
        page_token: of the page before; empty for the first.
        fits: as in `MemoryStore.page`.

    Raises:
        InvalidPageTokenError: the token is not of this list.
    """
    with store.transaction():
        secret = meta.page_token_secret(store.connection)
        before = decode_page_token(page_token, ("operations",), secret) if page_token else 0
        found = _where(store, "id < ? ORDER BY id DESC LIMIT ?", before or 2**63 - 1, page_size + 1)
    fitting: list[Operation] = []
    for operation in found[:page_size]:
        if not fits(operation) and fitting:
            break
        fitting.append(operation)
    if len(found) == len(fitting):
        return fitting, ""
    return fitting, encode_page_token(fitting[-1].id, ("operations",), secret)


def _where(store: MemoryStore, condition: str, *values: SqlValue) -> list[Operation]:
    rows = store.connection.execute(f"SELECT * FROM operations WHERE {condition}", values)
    return [_operation(row) for row in rows]


def _operation(row: Row) -> Operation:
    return read_record(
        Operation,
        row,
        kind=OperationKind(row["kind"]),
        state=OperationState.CANCELLED if row["cancelled"] else OperationState(row["state"]),
        fact_id=row["fact_id"] or "",
        erase=bool(row["erase"]),
        proof=None if row["proof"] is None else json.loads(row["proof"]),
        requested_at=read_time(row["requested_at"]),
        finished_at=None if row["finished_at"] is None else read_time(row["finished_at"]),
        first_position=row["first_position"] or 0,
    )
