"""Giving facts the states they have on a line that begins to be served, in short steps.

Moving the head is one row. The states of the facts are many: a hundred thousand of them take
seconds. So the transaction that moves the head also notes that the switch goes on, and does its
first steps, which are all of it for a small memory. Each further step is a transaction of its own,
and notes how far it came. Until the last one, nobody may read states: see `StoreThreads.switching`.
A store that is opened again after a crash goes on where the last step ended.

Where the new states come from:

- forget: the branch (`relearned`);
- rollback: what was written down before the head moved (`restated`, see `rollback_states`);
- fresh start: each step finds out what its facts are on the line (see `fresh_start`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from memory_store import branch_growth, facts, ledger, meta, operations, reviews, schedule
from memory_store.connection import Connection
from memory_store.encoding import read_time, write_json, write_time
from memory_store.lines import Line, line_of
from memory_store.store import MemoryStore
from memory_store.verdicts import verdicts_on
from memory_store.vocabulary import (
    EventKind,
    FactState,
    Operation,
    OperationKind,
    Transition,
    Update,
)

# Facts, reviews, or rows to be removed, of one step.
FACTS_AT_ONCE, REVIEWS_AT_ONCE, ROWS_AT_ONCE = 125, 1_000, 1_000
# A step that finds less than its limit begins the next stage at once.
_RESTATE, _SUPERSEDE, _REVIEWS, _TIDY, _OVER = range(5)
_SWITCH = "switch"  # its key in `meta`


class SwitchKind(StrEnum):
    """Why the head moved."""

    FORGET = "forget"
    """A branch without a fact is served."""
    ROLLBACK = "rollback"
    """An earlier version is served, because somebody asked for it."""
    FRESH_START = "fresh_start"
    """An earlier version is served, because this release cannot reach a later one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """A switch that is not over.

    Attributes:
        kind: why the head moved.
        operation: id of the operation; 0 for a fresh start, which nobody asked for.
        version: the row of the ledger that is served from now on.
        line_end: the version whose lineage says what each fact's last teaching found.
        to_version: whose weights are served again; for a rollback, the version that was asked for.
        at: time of the switch.
        stage: what is being done.
        cursor: position of the last fact, or id of the last review, that is done in this stage.
        question_keys: of the forgotten fact, whose text may be erased already, and of what it had
            superseded.
        because: why a fresh start was needed, a clause.
        queued: number of facts that a fresh start has queued again so far.
    """

    kind: SwitchKind
    operation: int
    version: int
    line_end: int
    to_version: int
    at: str
    stage: int = _RESTATE
    cursor: int = 0
    question_keys: Sequence[str] = ()
    because: str = ""
    queued: int = 0


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
    forgets = operation.kind is OperationKind.FORGET
    switch = Switch(
        kind=SwitchKind(operation.kind.value),
        operation=operation.id,
        version=row.model_version,
        line_end=row.model_version if forgets else row.parent_version,
        to_version=operation.to_version,
        at=write_time(store.now()),
        question_keys=sorted(question_keys),
    )
    _first_steps(store, switch, line)


def begin_fresh_start(store: MemoryStore, row: Update, line: Line, because: str) -> None:
    """As `begin`, for a fresh start.

    Args:
        store: the memory.
        row: of the ledger, that moves the head.
        line: of the version that is served again.
        because: why, for the event; a clause.
    """
    switch = Switch(
        kind=SwitchKind.FRESH_START,
        operation=0,
        version=row.model_version,
        line_end=row.parent_version,
        to_version=row.parent_version,
        at=write_time(store.now()),
        because=because,
    )
    _first_steps(store, switch, line)


def _first_steps(store: MemoryStore, switch: Switch, line: Line | None) -> None:
    stage = -1
    while stage < switch.stage < _OVER:  # until a step finds as much as it may do at once
        stage, switch = switch.stage, _step(store, switch, line)
    _note(store, switch)


def in_progress(store: MemoryStore) -> bool:
    """Whether a switch is not over: the states of facts are to be read by nobody."""
    return meta.noted(store.connection, _SWITCH) is not None


def go_on(store: MemoryStore, line: Line | None = None) -> bool:
    """Does one step of the switch that is not over; False if there is none, or nothing is left.

    Args:
        store: the memory.
        line: that of the served version, if it is at hand.
    """
    with store.transaction():
        noted = meta.noted(store.connection, _SWITCH)
        if noted is None:
            return False
        fields = json.loads(noted)
        switch = Switch(**fields | {"kind": SwitchKind(fields["kind"])})
        switch = _step(store, switch, line)
        _note(store, switch)
        return switch.stage != _OVER


def _note(store: MemoryStore, switch: Switch) -> None:
    if switch.stage == _OVER:
        meta.drop(store.connection, _SWITCH)
        _end(store, switch)
    else:
        meta.note(store.connection, _SWITCH, write_json(asdict(switch)))


def _end(store: MemoryStore, switch: Switch) -> None:
    """A rollback or a fresh start is over with its switch; a forget still has to clean up."""
    if switch.kind is SwitchKind.FORGET:
        return
    message = f"to {switch.to_version}"
    if switch.kind is SwitchKind.FRESH_START:
        message = (
            f"to version {switch.to_version}, since {switch.because};"
            f" {switch.queued} facts are learned again"
        )
    store.emit(EventKind.ROLLED_BACK, store.now(), message=message)
    if switch.kind is SwitchKind.ROLLBACK:
        operations.change(store, switch.operation, Transition.CLOSE)


def _step(store: MemoryStore, switch: Switch, line: Line | None) -> Switch:
    """Does one step; the switch as it is then."""
    last, connection = 0, store.connection
    if switch.stage == _REVIEWS:
        last, found = _retaught(connection, switch.cursor)
        if found:
            reviews.settle(store, line or line_of(connection, switch.line_end), found)
        more = last > 0
    elif switch.stage == _TIDY:
        if switch.kind is SwitchKind.FRESH_START:
            more = branch_growth.remove_dropped(store, ROWS_AT_ONCE)
        else:
            more = _remove_written_down(connection, switch)
    else:
        last = _last_position(connection, switch)
        # The last step of a stage takes all facts that are left.
        end = last or 2**62
        if switch.stage == _SUPERSEDE:
            _supersede(store, switch, end)
        elif switch.kind is SwitchKind.FRESH_START:
            line = line or line_of(connection, switch.line_end)
            queued = _queue_again(store, switch, end, line)
            switch = replace(switch, queued=switch.queued + queued)
        else:
            _restate(store, switch, end)
        more = last > 0
    if more:
        return replace(switch, cursor=last)
    return replace(switch, cursor=0, stage=switch.stage + 1)


# Where the facts of a switch are listed.
_SOURCES = {
    SwitchKind.FORGET: "relearned",
    SwitchKind.ROLLBACK: "restated",
    SwitchKind.FRESH_START: "(SELECT 0 AS operation_id, position FROM facts)",
}


def _last_position(connection: Connection, switch: Switch) -> int:
    """Of the facts of the next step; 0 if it is the last one."""
    return connection.number(
        f"SELECT position FROM {_SOURCES[switch.kind]} WHERE operation_id = ? AND position > ?"
        " ORDER BY position LIMIT 1 OFFSET ?",
        [switch.operation, switch.cursor, FACTS_AT_ONCE - 1],
    )


def _restate(store: MemoryStore, switch: Switch, end: int) -> None:
    """Gives the facts of a step, up to a position, the states that were stored for them."""
    connection = store.connection
    head = ledger.depth(connection, switch.version)
    at = read_time(switch.at)
    updates, time = schedule.interval(0)
    new = (
        "SELECT position, state, reason, NULL AS learning, NULL AS taught FROM restated"
        if switch.kind is SwitchKind.ROLLBACK
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
            end,
        ],
    )
    if switch.kind is SwitchKind.ROLLBACK:
        _report_queued_again(store, switch, end)


def _report_queued_again(store: MemoryStore, switch: Switch, end: int) -> None:
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
            end,
        ],
    )


def _queue_again(store: MemoryStore, switch: Switch, end: int, line: Line) -> int:
    """Gives the facts of a step, up to a position, the states that they have on a line.

    Facts that were not tried on it are queued again. Facts that were forgotten stay so.

    Returns:
        The number of facts that were queued again.
    """
    connection, at = store.connection, read_time(switch.at)
    tried = connection.execute(
        "SELECT position, id, state, question = '' AS erased FROM facts"
        " WHERE position > ? AND position <= ? AND state NOT IN ('queued', 'learning', 'forgotten')"
        " ORDER BY position",
        [switch.cursor, end],
    )
    verdicts = verdicts_on(store, line, [row["id"] for row in tried])
    queued = 0
    for row in tried:
        if row["erased"]:
            # What the line may hold waits for weights without it; its own operation sees to that.
            if row["id"] not in verdicts:
                facts.change_state(connection, row["id"], FactState.FORGOTTEN, at)
        elif row["id"] in verdicts:
            state, reason = verdicts[row["id"]]
            if state != row["state"]:
                facts.restate(connection, row["position"], state, at, reason=reason)
        else:
            facts.queue_again(connection, row["position"], at)
            message = f"learned again from version {switch.to_version}"
            store.emit(EventKind.REQUEUED, at, fact_id=row["id"], message=message)
            queued += 1
    return queued


def _supersede(store: MemoryStore, switch: Switch, end: int) -> None:
    """The newest held answer to each question of a step's facts is the one that counts."""
    connection = store.connection
    rows = connection.execute(
        "SELECT DISTINCT question_key FROM facts WHERE position IN"
        f" (SELECT position FROM {_SOURCES[switch.kind]} WHERE operation_id = ? AND position > ?"
        "  AND position <= ?)"
        # An erased fact is superseded by nothing: it waits for weights without it.
        " AND question <> '' AND (state = 'superseded' OR EXISTS (SELECT 1 FROM facts AS other"
        "  WHERE other.question_key = facts.question_key AND other.position <> facts.position))",
        [switch.operation, switch.cursor, end],
    )
    keys = {str(row["question_key"]) for row in rows}
    if switch.cursor == 0:
        keys |= set(switch.question_keys)
    facts.settle_superseded(connection, keys, read_time(switch.at))


def _remove_written_down(connection: Connection, switch: Switch) -> bool:
    """Removes some of what was written down before a rollback; False if nothing is left."""
    connection.execute(
        "DELETE FROM restated WHERE operation_id = ?1 AND position <= (SELECT max(position) FROM"
        " (SELECT position FROM restated WHERE operation_id = ?1 ORDER BY position LIMIT ?2))",
        [switch.operation, ROWS_AT_ONCE],
    )
    left = "SELECT 1 FROM restated WHERE operation_id = ? LIMIT 1"
    return bool(connection.first(left, [switch.operation]))


def _retaught(connection: Connection, after: int) -> tuple[int, list[str]]:
    """The last review of a step (0: it is the last one), and the facts that were taught again."""
    last = connection.number(
        "SELECT id FROM reviews WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?",
        [after, REVIEWS_AT_ONCE - 1],
    )
    found = connection.execute(
        "SELECT DISTINCT fact_id FROM reviews WHERE id > ? AND id <= ? AND (outcome = 'retaught'"
        " OR EXISTS (SELECT 1 FROM reviewed_again WHERE review_id = reviews.id"
        "  AND reviewed_again.outcome = 'retaught')) ORDER BY fact_id",
        [after, last or 2**62],
    )
    return last, [str(row["fact_id"]) for row in found]
