"""Thinning: removes old probes and events of a growing memory, in small pieces.

The rule:

- Probes of a fact, for each question: the newest of each kind stays. Of the others one stays in
  each range of ages 0, 1, 2 to 3, 4 to 7, ... , the oldest. An age is counted in versions of the
  ledger. A probe of the fact's own question also stays, with the one before it, where the
  probability moved by `MOVED` or more: `provenance` names the update that moved it.
- Events: the newest `keep_events` stay as they are. Of older ones those stay that say how an
  attempt ended (`ENDINGS`), since undoing needs them, without the rate curve.
- What an operation learned again, once it is over: the rate curves go. If it failed, all of it.
  What was written down for a rollback that failed or was cancelled goes too.
- The trace that a fact was taught in goes once the fact was processed.

Everything else stays for ever: facts, the ledger, request ids with their first answers, reviews,
operations and proofs.

Each piece is one transaction of a few milliseconds. A pass over the facts begins when enough
probes have come in since the last one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from memory_store import erasure, events, ledger, meta, reviews
from memory_store import probes as probes_module
from memory_store.connection import Connection, SqlValue
from memory_store.encoding import write_json
from memory_store.store import MemoryStore
from memory_store.vocabulary import EventKind, ProbeKind

# How an attempt ended: undoing finds the states of facts on a line of the ledger by these.
ENDINGS = (
    EventKind.LEARNED,
    EventKind.KNOWN,
    EventKind.RESISTED,
    EventKind.QUARANTINED,
    EventKind.RETAUGHT,
)
MOVED = 0.1
# A piece ends after this many.
PROBES_READ, PROBES_REMOVED, ROWS = 500, 75, 100
# The most probes of one fact to compare at once; the oldest first.
PROBES_TOGETHER = 1_000
# The new probes that start the next pass: at least, and for each fact.
PASS_PROBES, PASS_PROBES_A_FACT = 1_000, 2

# Tables that operations leave behind, and the rest of their primary keys.
_LEFT = (("relearned", "position"), ("reviewed_again", "review_id"), ("restated", "position"))
_PROBES, _EVENTS, _OPERATIONS = "probes_thinned_to", "events_thinned_to", "operations_thinned_to"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptProbe:
    """The parts of a probe that the rule reads.

    Attributes:
        id: in the order of storage.
        kind: why it was asked.
        question: as written; empty for the fact's own.
        probability: of the answer, 0 to 1.
        age: versions of the ledger since then.
    """

    id: int
    kind: str
    question: str
    probability: float
    age: int


def kept(probes: Iterable[KeptProbe]) -> set[int]:
    """Returns the ids that the rule keeps, among all probes of one fact in order."""
    stays: set[int] = set()
    newest: dict[tuple[str, str], int] = {}
    ages: defaultdict[tuple[bool, str], set[int]] = defaultdict(set)
    before: KeptProbe | None = None
    for probe in probes:
        newest[probe.kind, probe.question] = probe.id
        own = probe.kind != ProbeKind.TRANSFER
        taken = ages[own, probe.question]
        if probe.age.bit_length() not in taken:
            taken.add(probe.age.bit_length())
            stays.add(probe.id)
        if own:
            if before is not None and abs(probe.probability - before.probability) >= MOVED:
                stays |= {before.id, probe.id}
            before = probe
    return stays | set(newest.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """The results of thinning.

    Attributes:
        probes: rows.
        events: rows.
        curves: rate curves of events and operations, and rows of failed operations.
    """

    probes: int = 0
    events: int = 0
    curves: int = 0

    def __add__(self, other: Removed) -> Removed:
        """Both together."""
        return Removed(
            probes=self.probes + other.probes,
            events=self.events + other.events,
            curves=self.curves + other.curves,
        )


class Thinning:
    """Thins a memory piece by piece. Its progress is stored, except within a pass over facts.

    Args:
        keep_events: the newest events that stay as they are.
        fully: begin with a pass over all facts, even if few probes are new.
    """

    def __init__(self, keep_events: int, *, fully: bool = False) -> None:
        self._keep_events = keep_events
        self._fully = fully
        self._passing: int | None = None  # the progress of a pass over the facts, by position
        self._left = (0, 0)  # the progress in what an operation left: table and row

    def piece(self, store: MemoryStore) -> Removed | None:
        """Runs the next piece; None if there is nothing to do now.

        It waits while an erased text is searched for: the search could miss a row that moves.
        """
        with store.transaction():
            connection = store.connection
            if erasure.pending(store):
                return None
            return (
                self._events(connection)
                or self._operations(connection)
                or self._probes(connection)
                or self._traces(connection)
            )

    # -- Events ------------------------------------------------------------------------------

    def _events(self, connection: Connection) -> Removed | None:
        limit = events.last_sequence(connection) - self._keep_events
        done = meta.reached(connection, _EVENTS)
        if limit < done + min(ROWS, self._keep_events):  # not for every single one
            return None
        end = min(limit, done + ROWS)
        within = "sequence > ? AND sequence <= ?"
        endings = write_json([kind.value for kind in ENDINGS])
        removed = connection.execute(
            f"DELETE FROM events WHERE {within}"
            " AND kind NOT IN (SELECT value FROM json_each(?)) RETURNING sequence",
            [done, end, endings],
        )
        curves = _without_curves(connection, "events", within, [done, end])
        meta.reach(connection, _EVENTS, end)
        return Removed(events=len(removed), curves=curves)

    # -- Operations --------------------------------------------------------------------------

    def _operations(self, connection: Connection) -> Removed | None:
        found = connection.execute(
            "SELECT id, proof IS NULL AS failed FROM operations WHERE id > ?"
            " AND finished_at IS NOT NULL AND id < coalesce((SELECT min(id) FROM operations"
            " WHERE finished_at IS NULL), id + 1) ORDER BY id LIMIT 1",
            [meta.reached(connection, _OPERATIONS)],
        )
        if not found:
            return None
        operation, failed = int(found[0]["id"]), bool(found[0]["failed"])
        number, row = self._left
        if number == len(_LEFT):
            self._left = (0, 0)
            meta.reach(connection, _OPERATIONS, operation)
            return Removed()
        table, column = _LEFT[number]
        rows = connection.execute(
            f"SELECT {column} AS row FROM {table} WHERE operation_id = ? AND {column} > ?"
            f" ORDER BY {column} LIMIT ?",
            [operation, row, ROWS],
        )
        if not rows:
            self._left = (number + 1, 0)
            return Removed()
        reached = int(rows[-1]["row"])
        self._left = (number, reached)
        within = f"operation_id = ? AND {column} > ? AND {column} <= ?"
        bounds: list[SqlValue] = [operation, row, reached]
        if not failed and table != "restated":
            return Removed(curves=_without_curves(connection, table, within, bounds))
        connection.execute(f"DELETE FROM {table} WHERE {within}", bounds)
        return Removed(curves=len(rows))

    # -- Probes ------------------------------------------------------------------------------

    def _probes(self, connection: Connection) -> Removed | None:
        if self._passing is None and not self._begins_pass(connection):
            return None
        newest_version = ledger.newest_version(connection)
        read = removed = 0
        while read < PROBES_READ and removed < PROBES_REMOVED:
            rows = connection.execute(
                "SELECT position, id FROM facts WHERE position > ? ORDER BY position LIMIT 1",
                [self._passing or 0],
            )
            if not rows:
                self._passing = None
                meta.reach(connection, _PROBES, _last_probe(connection))
                break
            probes = _probes_of(connection, rows[0]["id"], newest_version)
            stays = kept(probes)
            goes = [probe.id for probe in probes if probe.id not in stays]
            if goes and len(probes) < PROBES_TOGETHER:
                _move_to_end(connection, sorted(stays))
                goes += stays
            connection.execute(
                "DELETE FROM probes WHERE id IN (SELECT value FROM json_each(?))",
                [write_json(goes)],
            )
            read += 1 + len(probes)
            removed += sum(probe.id not in stays for probe in probes)
            if not goes or len(probes) < PROBES_TOGETHER:
                self._passing = int(rows[0]["position"])
        return Removed(probes=removed)

    def _begins_pass(self, connection: Connection) -> bool:
        last = _last_probe(connection)
        facts = connection.number("SELECT max(position) FROM facts")
        enough = max(PASS_PROBES, PASS_PROBES_A_FACT * facts)
        new = last - min(last, meta.reached(connection, _PROBES))
        if not new or (new < enough and not self._fully):
            return False
        self._fully = False
        self._passing = 0
        return True

    # -- Traces ------------------------------------------------------------------------------

    def _traces(self, connection: Connection) -> Removed | None:
        removed = connection.execute(
            "DELETE FROM traces WHERE position IN (SELECT position FROM traces"
            " WHERE position <= ? ORDER BY position LIMIT ?) RETURNING position",
            [reviews.processed_up_to(connection), ROWS],
        )
        return Removed() if removed else None


def thinned_up_to(store: MemoryStore) -> int:
    """The sequence number up to which only events about the end of an attempt are kept."""
    return meta.reached(store.connection, _EVENTS)


def _last_probe(connection: Connection) -> int:
    return connection.number("SELECT max(id) FROM probes")


def _move_to_end(connection: Connection, ids: list[int]) -> None:
    """Copies probes, in order, to the end of the table, where those of a fact fill whole pages.

    Between the gaps of removed probes, they would occupy nearly as many pages as before.
    """
    columns = ", ".join(probes_module.COLUMNS)
    connection.execute(
        f"INSERT INTO probes ({columns}) SELECT {columns} FROM probes"
        " WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
        [write_json(ids)],
    )


def _probes_of(connection: Connection, fact_id: str, newest_version: int) -> list[KeptProbe]:
    rows = connection.execute(
        "SELECT id, kind, question, log_probability, model_version FROM probes"
        " WHERE fact_id = ? ORDER BY id LIMIT ?",
        [fact_id, PROBES_TOGETHER],
    )
    return [
        KeptProbe(
            id=row["id"],
            kind=row["kind"],
            question=row["question"],
            probability=math.exp(row["log_probability"]),
            age=max(0, newest_version - row["model_version"]),
        )
        for row in rows
    ]


def _without_curves(connection: Connection, table: str, within: str, bounds: list[SqlValue]) -> int:
    changed = connection.execute(
        f"UPDATE {table} SET learning = json_remove(learning, '$.curve')"
        f" WHERE {within} AND json_type(learning, '$.curve') IS NOT NULL RETURNING 1",
        bounds,
    )
    return len(changed)
