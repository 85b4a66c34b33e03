"""Giving facts the states they have on a line that begins to be served, in short steps.

Moving the head is one row. The states of the facts are many: a hundred thousand of them take
seconds. So the transaction that moves the head also notes that the switch goes on, and does its
first steps, which are all of it for a small memory. Each further step is a transaction of its own,
and notes how far it came. Until the last one, nobody may read states: see `StoreThreads.switching`.
A store that is opened again after a crash goes on where the last step ended.

The new states are those of the branch (`relearned`), or for a rollback those that were written down
before the head moved (`restated`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace

from memory_store import facts, ledger, reviews, schedule
from memory_store.connection import Connection
from memory_store.encoding import read_time, write_json, write_time
from memory_store.lines import Line, line_of
from memory_store.store import MemoryStore
from memory_store.vocabulary import (
    EventKind,
    Operation,
    OperationKind,
    OperationState,
    Update,
)

# Facts, or reviews, of one step.
FACTS_AT_ONCE, REVIEWS_AT_ONCE, ROWS_AT_ONCE = 250, 2_000, 5_000
# A step that finds less than its limit begins the next phase at once.
_RESTATE, _SUPERSEDE, _REVIEWS, _TIDY, _OVER = range(5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """A switch that is not over.

    Attributes:
        operation: id of the operation.
        rollback: whether it rolls back, rather than forgets.
        version: the row of the ledger that is served from now on.
        line_end: the version whose lineage says what each fact's last teaching found.
        to_version: that a rollback was asked for.
        at: time of the switch.
        phase: what is being done.
        cursor: position of the last fact, or id of the last review, that is done in this phase.
        question_keys: of the forgotten fact, whose text may be erased already, and of what it had
            superseded.
    """

    operation: int
    rollback: bool
    version: int
    line_end: int
    to_version: int
    at: str
    phase: int = _RESTATE
    cursor: int = 0
    question_keys: Sequence[str] = ()


def begin(
    store: MemoryStore,
    operation: Operation,
    row: Update,
    line: Line | None,
    question_keys: Collection[str],
) -> None:
    """Begins a switch, as part of the transaction that moves the head, with its first steps.

    Args:
        store: the memory.
        operation: whose result is served from now on.
        row: of the ledger, that moves the head.
        line: whose teachings count, if it is at hand.
        question_keys: see `Switch`.
    """
    rollback = operation.kind is OperationKind.ROLLBACK
    switch = Switch(
        operation=operation.id,
        rollback=rollback,
        version=row.model_version,
        line_end=row.parent_version if rollback else row.model_version,
        to_version=operation.to_version,
        at=write_time(store.now()),
        question_keys=sorted(question_keys),
    )
    phase = -1
    while phase < switch.phase < _OVER:  # until a step finds as much as it may do at once
        phase, switch = switch.phase, _step(store, switch, line)
    _note(store, switch)


def in_progress(store: MemoryStore) -> bool:
    """Whether a switch is not over: the states of facts are to be read by nobody."""
    return bool(store.connection.execute("SELECT 1 FROM meta WHERE key = 'switch' LIMIT 1"))


def go_on(store: MemoryStore, line: Line | None = None) -> bool:
    """Does one step of the switch that is not over; False if there is none, or nothing is left.

    Args:
        store: the memory.
        line: that of the served version, if it is at hand.
    """
    with store.transaction():
        rows = store.connection.execute("SELECT value FROM meta WHERE key = 'switch'")
        if not rows:
            return False
        switch = _step(store, Switch(**json.loads(rows[0]["value"])), line)
        _note(store, switch)
        return switch.phase != _OVER


def _note(store: MemoryStore, switch: Switch) -> None:
    if switch.phase == _OVER:
        store.connection.execute("DELETE FROM meta WHERE key = 'switch'")
        _end(store, switch)
    else:
        store.connection.execute(
            "INSERT INTO meta (key, value) VALUES ('switch', ?)"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [write_json(asdict(switch))],
        )


def _end(store: MemoryStore, switch: Switch) -> None:
    """A rollback is over with its switch; a forgetting is cleaned up after."""
    if not switch.rollback:
        return
    at = write_time(store.now())
    store.emit(EventKind.ROLLED_BACK, read_time(at), fact_id="", message=f"to {switch.to_version}")
    store.connection.execute(
        "UPDATE operations SET state = ?, finished_at = ? WHERE id = ?",
        [OperationState.DONE.value, at, switch.operation],
    )


def _step(store: MemoryStore, switch: Switch, line: Line | None) -> Switch:
    """Does one step; the switch as it is then."""
    if switch.phase == _REVIEWS:
        last, found = _retaught(store.connection, switch.cursor)
        if found:
            reviews.settle(store, line or line_of(store.connection, switch.line_end), found)
        more = last > 0
    elif switch.phase == _TIDY:
        last = 0
        more = _tidy(store.connection, switch)
    else:
        last = _last_position(store.connection, switch)
        step = _restate if switch.phase == _RESTATE else _supersede
        step(store, switch, last or switch.cursor)
        more = last > 0
    if more:
        return replace(switch, cursor=last)
    return replace(switch, cursor=0, phase=switch.phase + 1)


def _source(switch: Switch) -> str:
    return "restated" if switch.rollback else "relearned"


def _last_position(connection: Connection, switch: Switch) -> int:
    """Of the facts of the next step; 0 if it is the last one."""
    rows = connection.execute(
        f"SELECT position FROM {_source(switch)} WHERE operation_id = ? AND position > ?"
        " ORDER BY position LIMIT 1 OFFSET ?",
        [switch.operation, switch.cursor, FACTS_AT_ONCE - 1],
    )
    return int(rows[0]["position"]) if rows else 0


def _restate(store: MemoryStore, switch: Switch, last: int) -> None:
    """The facts of a step are what they are on the branch; `last`: the cursor for all others."""
    connection = store.connection
    head = ledger.depth(connection, switch.version)
    at = read_time(switch.at)
    updates, time = schedule.interval(0)
    new = (
        "SELECT position, state, reason, NULL AS learning, NULL AS taught FROM restated"
        if switch.rollback
        else "SELECT position, verdict AS state, reason, learning, iif(verdict = 'learned',"
        " (SELECT depth FROM updates WHERE updates.model_version = relearned.model_version), NULL)"
        " AS taught FROM relearned"
    )
    connection.execute(
        "UPDATE facts SET state = new.state, updated_at = ?,"
        " reason = iif(new.state = 'queued', '', new.reason),"
        " failed_attempts = iif(new.state = 'queued', 0, failed_attempts),"
        " superseded_by = '', learning = coalesce(new.learning, facts.learning),"
        " times_held = iif(new.state IN ('learned', 'known'), 0, times_held),"
        " due_depth = iif(new.state IN ('learned', 'known'), ?, due_depth),"
        " due_at = iif(new.state IN ('learned', 'known'), ?, due_at),"
        " held_since = iif(new.state IN ('learned', 'known'),"
        "  coalesce(new.taught, min(coalesce(held_since, ?), ?)), held_since)"
        f" FROM ({new} WHERE operation_id = ? AND position > ? AND position <= ?) AS new"
        # What was erased is taken out of the weights by an operation of its own.
        " WHERE facts.position = new.position AND facts.question <> ''",
        [
            switch.at,
            head + updates,
            write_time(at + time),
            head,
            head,
            switch.operation,
            switch.cursor,
            last if last > switch.cursor else 2**62,
        ],
    )
    if switch.rollback:
        _tell_queued_again(store, switch, last)


def _tell_queued_again(store: MemoryStore, switch: Switch, last: int) -> None:
    """An event for each fact of a step that a rollback keeps."""
    store.connection.execute(
        "INSERT INTO events (kind, fact_id, model_version, message, at)"
        " SELECT ?, facts.id, ?, restated.reason, ? FROM restated JOIN facts USING (position)"
        " WHERE operation_id = ? AND position > ? AND position <= ? AND restated.state = 'queued'"
        " AND facts.state = 'queued'"
        " ORDER BY position",
        [
            EventKind.REQUEUED.value,
            switch.version,
            switch.at,
            switch.operation,
            switch.cursor,
            last if last > switch.cursor else 2**62,
        ],
    )


def _supersede(store: MemoryStore, switch: Switch, last: int) -> None:
    """The newest held answer to each question of a step's facts is the one that counts."""
    connection = store.connection
    rows = connection.execute(
        "SELECT DISTINCT question_key FROM facts WHERE position IN"
        f" (SELECT position FROM {_source(switch)} WHERE operation_id = ? AND position > ?"
        "  AND position <= ?)"
        " AND (state = 'superseded' OR EXISTS (SELECT 1 FROM facts AS other"
        "  WHERE other.question_key = facts.question_key AND other.position <> facts.position))",
        [switch.operation, switch.cursor, last if last > switch.cursor else 2**62],
    )
    keys = {str(row["question_key"]) for row in rows}
    if switch.cursor == 0:
        keys |= set(switch.question_keys)
    facts.settle_superseded(connection, keys, read_time(switch.at))


def _tidy(connection: Connection, switch: Switch) -> bool:
    """Removes some of what was written down before a rollback; False if nothing is left."""
    connection.execute(
        "DELETE FROM restated WHERE operation_id = ?1 AND position <= (SELECT max(position) FROM"
        " (SELECT position FROM restated WHERE operation_id = ?1 ORDER BY position LIMIT ?2))",
        [switch.operation, ROWS_AT_ONCE],
    )
    left = connection.execute(
        "SELECT 1 FROM restated WHERE operation_id = ? LIMIT 1", [switch.operation]
    )
    return bool(left)


def _retaught(connection: Connection, after: int) -> tuple[int, list[str]]:
    """The last review of a step (0: it is the last one), and the facts that were taught again."""
    rows = connection.execute(
        "SELECT id FROM reviews WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?",
        [after, REVIEWS_AT_ONCE - 1],
    )
    last = int(rows[0]["id"]) if rows else 0
    found = connection.execute(
        "SELECT DISTINCT fact_id FROM reviews WHERE id > ? AND id <= ? AND (outcome = 'retaught'"
        " OR EXISTS (SELECT 1 FROM reviewed_again WHERE review_id = reviews.id"
        "  AND reviewed_again.outcome = 'retaught')) ORDER BY fact_id",
        [after, last or 2**62],
    )
    return last, [str(row["fact_id"]) for row in found]
