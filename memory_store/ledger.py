"""The ledger: one row for every change of the weights, never changed or deleted.

Rows form a tree: each names the version it was made on, its parent, down to the base checkpoint,
0. The weights of a version are its *lineage* replayed: the rows from the base to it. Most rows
follow the newest one, so the tree is mostly a line. It branches at every undo:

    teach     one fact, by gradient steps
    rollback  the weights of an earlier version again: no steps, its parent is that version
    relearn   as teach, on a branch that is being built without a forgotten fact
    forget    the end of such a branch, from which on it is served: no steps
    drift     the same lineage on other hardware, accepted by the operator: no steps

Where drift was accepted, digests do not follow from one row to the next (see `drifts`): the row of
that kind, or the first of a branch that grew from an earlier version as it replays since.

The *depth* of a version is the number of updates on its lineage: rows that teach.

Policy and environment are mostly those of the row before. Then a row has `@` and the version of the
row that contains them.

The *head* is the version that is served: the newest row that is not on an unfinished branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from memory_store.connection import Connection, Row, SqlValue
from memory_store.encoding import (
    read_environment,
    read_policy,
    read_record,
    read_steps,
    read_time,
    write_json,
    write_policy,
    write_steps,
    write_time,
)
from memory_store.errors import LedgerConflictError
from memory_store.lines import line_of
from memory_store.tables import FORK, SERVED
from memory_store.vocabulary import LedgerKind, NewUpdate, ReplayDrift, Update

SHARED = ("policy", "environment")
# A row, with the columns that it shares with another one.
_ROW = "updates.*, " + ", ".join(
    f"iif(updates.{column} LIKE '@%', (SELECT {column} FROM updates AS written"
    f" WHERE written.model_version = CAST(substr(updates.{column}, 2) AS INTEGER)), NULL)"
    f" AS shared_{column}"
    for column in SHARED
)
# Rows that teach a fact by gradient steps.
TAUGHT = (LedgerKind.TEACH, LedgerKind.RELEARN)


def head_version(connection: Connection) -> int:
    """The version that is served; 0 if the ledger is empty, which is the base model."""
    return connection.number(f"SELECT max(model_version) FROM updates WHERE {SERVED}")


def newest_version(connection: Connection) -> int:
    """Version of the newest row, served or not."""
    return connection.number("SELECT max(model_version) FROM updates")


def depth(connection: Connection, version: int) -> int:
    """The number of updates from the base checkpoint to this version."""
    return connection.number("SELECT depth FROM updates WHERE model_version = ?", [version])


def append_at_head(connection: Connection, update: NewUpdate, at: datetime) -> Update:
    """Adds an update of the served weights.

    Raises:
        LedgerConflictError: the update was not made on the head.
    """
    require_head(connection, update.fact_id, update.base_version)
    return append(connection, LedgerKind.TEACH, update, at)


def require_head(connection: Connection, fact_id: str, version: int) -> None:
    """Checks that an attempt was made with the served weights.

    Raises:
        LedgerConflictError: `version` is not the head.
    """
    head = head_version(connection)
    if version != head:
        raise LedgerConflictError(
            f"The update for fact {fact_id} was made on model version {version}, but the ledger is"
            f" at {head}. Bring the learner to version {head} and learn the fact again."
        )


def append(connection: Connection, kind: LedgerKind, update: NewUpdate, at: datetime) -> Update:
    """Adds a row on whichever version the update was made."""
    version = newest_version(connection) + 1
    before = connection.first(f"SELECT {_ROW} FROM updates WHERE model_version = ?", [version - 1])

    def shared(column: str, text: str | None) -> str | None:
        """Refers to the row before, or to the row that it refers to, if the value is the same."""
        if before is None or text is None or text != _written(before, column):
            return text
        return str(before[column]) if before[f"shared_{column}"] else f"@{version - 1}"

    connection.insert(
        "updates",
        {
            "model_version": version,
            "kind": kind.value,
            "parent_version": update.base_version,
            "fact_id": update.fact_id or None,
            "policy": shared("policy", write_policy(update.policy)),
            "steps": write_steps(update.steps),
            "digest_before": update.digest_before,
            "digest_after": update.digest_after,
            "algorithm": update.algorithm,
            "environment": shared("environment", write_json(dict(update.environment))),
            "seconds": update.seconds,
            "applied_at": write_time(at),
            "depth": depth(connection, update.base_version) + (kind in TAUGHT),
        },
    )
    row = find(connection, version)
    assert row is not None
    return row


def lineage(connection: Connection, version: int) -> list[int]:
    """The versions whose rows, replayed in this order, give the weights of `version`."""
    return list(line_of(connection, version))


def recent(connection: Connection, version: int, limit: int) -> list[Update]:
    """The last `limit` rows of the lineage of a version, in order; reads only these."""
    rows = connection.execute(
        "WITH RECURSIVE line (version) AS ("
        " SELECT model_version FROM updates WHERE model_version = ?"
        " UNION ALL"
        " SELECT updates.parent_version FROM updates JOIN line ON model_version = line.version"
        " WHERE updates.parent_version > 0"
        " LIMIT ?"
        f") SELECT {_ROW} FROM line JOIN updates ON model_version = line.version"
        " ORDER BY model_version",
        [version, limit],
    )
    return [_update(row) for row in rows]


def drifts(connection: Connection, versions: Sequence[int]) -> list[ReplayDrift]:
    """Where these versions continue from weights other than those recorded for their parents."""
    if not connection.execute("SELECT 1 FROM updates WHERE kind = 'drift' LIMIT 1"):
        return []  # weights differ from those recorded only after an accepted drift
    chosen = set(versions)
    rows = connection.execute(
        # A row without steps changes no weights. A branch that does not continue from the row
        # before it is a fork.
        "SELECT row.model_version, row.kind, row.parent_version, parent.digest_after AS recorded,"
        " iif(row.steps = '[]', row.digest_after, row.digest_before) AS here"
        " FROM updates AS row JOIN updates AS parent ON parent.model_version = row.parent_version"
        " WHERE row.model_version IN ("
        f" SELECT model_version FROM updates WHERE {FORK} UNION"
        "  SELECT model_version FROM updates WHERE kind = 'drift')"
        " AND recorded <> here ORDER BY row.model_version"
    )
    found = (ReplayDrift(**{**row, "kind": LedgerKind(row["kind"])}) for row in map(dict, rows))
    return [drift for drift in found if drift.model_version in chosen]


def find(connection: Connection, model_version: int) -> Update | None:
    """The row that led to this version, if there is one."""
    found = _updates(connection, "model_version = ?", model_version)
    return found[0] if found else None


def at_versions(connection: Connection, versions: Sequence[int]) -> list[Update]:
    """The rows of some versions, in order."""
    chosen = "model_version IN (SELECT value FROM json_each(?))"
    return _updates(connection, chosen, write_json(list(versions)))


def of_fact(connection: Connection, fact_id: str) -> list[Update]:
    """The rows of one fact, oldest first."""
    return _updates(connection, "fact_id = ?", fact_id)


def _updates(connection: Connection, condition: str, parameter: SqlValue) -> list[Update]:
    rows = connection.execute(
        f"SELECT {_ROW} FROM updates WHERE {condition} ORDER BY model_version", [parameter]
    )
    return [_update(row) for row in rows]


def _written(row: Row, column: str) -> str | None:
    """The value of a column, even if another row contains it."""
    written: str | None = row[f"shared_{column}"] or row[column]
    return written


def _update(row: Row) -> Update:
    return read_record(
        Update,
        row,
        kind=LedgerKind(row["kind"]),
        fact_id=row["fact_id"] or "",
        policy=read_policy(_written(row, "policy")),
        steps=read_steps(row["steps"]),
        environment=read_environment(_written(row, "environment") or "{}"),
        applied_at=read_time(row["applied_at"]),
    )
