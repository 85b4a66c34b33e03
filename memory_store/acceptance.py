"""Accepts many facts with a few SQL statements, each with its own answer.

Between two statements, the writer waits for the interpreter's lock, which the server's loop holds
most of the time. So the number of statements does not depend on the number of facts: one looks up
what the memory holds, Python decides about each fact, and the rows are inserted together.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import BinaryIO

from memory_store import events, facts, requests
from memory_store.companion_sampling import sample_key
from memory_store.connection import Connection, SqlValue
from memory_store.encoding import read_time, write_json, write_policy, write_strings, write_time
from memory_store.errors import FactExistsError, MemoryStoreError, QueueFullError
from memory_store.requests import EarlierRequest, payload_hash
from memory_store.tables import FORK, LIVE, OPEN, SERVED
from memory_store.vocabulary import Accepted, EventKind, Fact, FactState, NewFact

Answer = Accepted | MemoryStoreError


def accept(
    connection: Connection, new_facts: Sequence[NewFact], at: datetime, max_queued: int | None
) -> list[Answer]:
    """Accepts facts as if one after another; see `MemoryStore.teach_many`."""
    keys = [facts.question_key(new.question) for new in new_facts]
    random = BytesIO(secrets.token_bytes(8 * len(new_facts)))
    batch = _Batch(connection, _look_up(connection, new_facts, keys), at, max_queued, random)
    answers = [batch.answer(new, key) for new, key in zip(new_facts, keys, strict=True)]
    batch.store()
    return answers


@dataclass(frozen=True, slots=True)
class _Held:
    """What the memory knows about the facts of a batch.

    Attributes:
        sequence: of the last event.
        position: of the last fact.
        version: the head of the ledger.
        queued: facts that wait to be learned.
        earlier: requests that were answered before, by their ids.
        live: by question key, the answer key and id of the newest live fact, and whether a
            requested operation may undo it.
        taken: ids that are in use.
    """

    sequence: int
    position: int
    version: int
    queued: int
    earlier: dict[str, EarlierRequest]
    live: dict[str, tuple[str, str, bool]]
    taken: set[str]


# A fact that will be forgotten, or that a rollback may undo, is not the same fact as one taught
# now: that one is accepted later, and kept. A rollback certainly keeps only what was learned on the
# straight line of the ledger to its version. If that is not visible, the fact is stored again,
# which does no harm: the model knows it already. A rollback also undoes what had been tried before
# its request and was queued again since (see `rollback_states`).
_TO_BE_TAKEN_BACK = f"""EXISTS (SELECT 1 FROM operations
    WHERE {OPEN} AND (
      operations.fact_id = facts.id
      OR operations.kind = 'rollback' AND (
        facts.state IN ('learned', 'known') AND NOT (
          facts.state = 'learned'
          AND facts.learning ->> '$.model_version' BETWEEN 1 AND operations.to_version
          AND NOT EXISTS (SELECT 1 FROM updates WHERE {FORK} AND model_version
            > facts.learning ->> '$.model_version' AND model_version <= operations.to_version))
        OR facts.state IN ('queued', 'learning')
        AND {events.queued_again_since("facts.id", "operations.after_event")})))"""

# One statement: the lists come as JSON.
_LOOK_UP = f"""SELECT
  (SELECT coalesce(max(sequence), 0) FROM events) AS sequence,
  (SELECT coalesce(max(position), 0) FROM facts) AS position,
  (SELECT coalesce(max(model_version), 0) FROM updates WHERE {SERVED}) AS version,
  (SELECT count FROM state_counts WHERE state = 'queued') AS queued,
  (SELECT json_group_array(
      json_array(request_id, payload_hash, fact_id, created, event_sequence, replaces))
    FROM json_each(?) JOIN requests ON request_id = value) AS earlier,
  (SELECT json_group_array(
      json_array(question_key, answer_key, facts.id, {_TO_BE_TAKEN_BACK}))
    FROM json_each(?) JOIN facts ON facts.position =
      (SELECT max(position) FROM facts WHERE question_key = value AND {LIVE})) AS live,
  (SELECT json_group_array(facts.id)
    FROM json_each(?) JOIN facts ON facts.id = value) AS taken"""


def _look_up(connection: Connection, new_facts: Sequence[NewFact], keys: Sequence[str]) -> _Held:
    request_ids = {new.request_id for new in new_facts if new.request_id is not None}
    fact_ids = {new.fact_id for new in new_facts if new.fact_id is not None}
    [row] = connection.execute(
        _LOOK_UP, [write_json(list(each)) for each in (request_ids, set(keys), fact_ids)]
    )
    return _Held(
        sequence=row["sequence"],
        position=row["position"],
        version=row["version"],
        queued=row["queued"],
        earlier={
            request_id: EarlierRequest(digest, fact_id, bool(created), sequence, replaces)
            for request_id, digest, fact_id, created, sequence, replaces in json.loads(
                row["earlier"]
            )
        },
        live={
            key: (answer_key, fact_id, bool(taken_back))
            for key, answer_key, fact_id, taken_back in json.loads(row["live"])
        },
        taken=set(json.loads(row["taken"])),
    )


class _Batch:
    """The state of the memory with the facts decided so far, and their rows to insert."""

    def __init__(
        self,
        connection: Connection,
        held: _Held,
        at: datetime,
        max_queued: int | None,
        random: BinaryIO,
    ) -> None:
        self._connection = connection
        self._random = random  # eight bytes for each id to make
        self._sequence, self._position, self._queued = held.sequence, held.position, held.queued
        self._version = held.version
        self._earlier, self._live, self._taken = held.earlier, held.live, held.taken
        self._added: dict[str, Fact] = {}
        self._max_queued = max_queued
        self._time = write_time(at)
        self._at = read_time(self._time)  # as it will be read again
        self._fact_rows: list[list[SqlValue]] = []
        self._request_rows: list[list[SqlValue]] = []
        self._trace_rows: list[list[SqlValue]] = []

    def answer(self, new: NewFact, key: str) -> Answer:
        """Decides about a fact, after all facts before it."""
        before = self._sequence
        digest = ""
        if new.request_id is not None:
            digest = payload_hash(new)
            earlier = self._earlier.get(new.request_id)
            if earlier is not None:
                return self._first_answer(digest, new.request_id, earlier)
        answer_key = facts.answer_key(new.answer)
        live_answer, live_id, taken_back = self._live.get(key, ("", "", False))
        same_id = live_id if live_answer == answer_key and not taken_back else None
        if new.fact_id in self._taken and same_id != new.fact_id:
            if live_id == new.fact_id and taken_back:
                return FactExistsError(
                    f"The fact {new.fact_id!r} is about to be forgotten or rolled back, and its id"
                    " stays taken. Teach the fact under another id, or none: it is kept then."
                )
            return FactExistsError(
                f"The fact id {new.fact_id!r} belongs to another fact. Choose another id, or none."
            )
        if same_id is None and self._max_queued is not None and self._queued >= self._max_queued:
            return QueueFullError(
                f"The queue is full: {self._queued} facts wait to be learned. Nothing was stored:"
                " repeat the request later, or raise --max-queued."
            )
        created = same_id is None
        fact = self._add(new, key, answer_key) if same_id is None else self._fact(same_id)
        replaces = live_id if created else ""
        if new.request_id is not None:
            self._earlier[new.request_id] = EarlierRequest(
                digest, fact.id, created, before, replaces
            )
            self._request_rows.append([new.request_id, digest, fact.id, created, before, replaces])
        return Accepted(fact=fact, created=created, event_sequence=before, replaces=replaces)

    def _first_answer(self, digest: str, request_id: str, earlier: EarlierRequest) -> Answer:
        if earlier.payload_hash != digest:
            return requests.used_otherwise(request_id, earlier)
        return Accepted(
            fact=self._fact(earlier.fact_id),
            created=earlier.created,
            event_sequence=earlier.event_sequence,
            repeated=True,
            replaces=earlier.replaces,
        )

    def _fact(self, fact_id: str) -> Fact:
        return self._added.get(fact_id) or facts.get(self._connection, fact_id)

    def _add(self, new: NewFact, key: str, answer_key: str) -> Fact:
        self._position += 1
        self._sequence += 1
        self._queued += 1
        fact = Fact(
            position=self._position,
            id=new.fact_id or f"f{self._random.read(8).hex()}",
            question=new.question,
            answer=new.answer,
            correlated_questions=new.correlated_questions,
            policy=new.policy,
            state=FactState.QUEUED,
            accepted_at=self._at,
            updated_at=self._at,
        )
        self._added[fact.id] = fact
        self._live[key] = answer_key, fact.id, False
        self._taken.add(fact.id)
        self._fact_rows.append(
            [
                fact.position,
                fact.id,
                fact.question,
                fact.answer,
                key,
                answer_key,
                write_strings(fact.correlated_questions),
                write_policy(fact.policy),
                sample_key(fact.id),
            ]
        )
        if new.traceparent is not None:
            self._trace_rows.append([fact.position, new.traceparent])
        return fact

    def store(self) -> None:
        """Writes all rows, each kind in one statement."""
        if self._fact_rows:
            self._connection.execute(
                "INSERT INTO facts (position, id, question, answer, question_key, answer_key,"
                " correlated, policy, sample_key, state, accepted_at, updated_at)"
                f" SELECT {_columns(9)}, 'queued', ?, ? FROM json_each(?)",
                [self._time, self._time, write_json(self._fact_rows)],
            )
            # One event for each of the new positions, in their order.
            self._connection.execute(
                "INSERT INTO events (sequence, kind, fact_id, model_version, at)"
                " SELECT position + ?, ?, id, ?, accepted_at FROM facts WHERE position >= ?",
                [
                    self._sequence - self._position,
                    EventKind.ACCEPTED.value,
                    self._version,
                    self._fact_rows[0][0],
                ],
            )
        if self._trace_rows:
            self._connection.execute(
                "INSERT INTO traces (position, traceparent)"
                f" SELECT {_columns(2)} FROM json_each(?)",
                [write_json(self._trace_rows)],
            )
        if self._request_rows:
            self._connection.execute(
                "INSERT INTO requests (request_id, payload_hash, fact_id, created, event_sequence,"
                f" replaces, created_at) SELECT {_columns(6)}, ? FROM json_each(?)",
                [self._time, write_json(self._request_rows)],
            )


def _columns(count: int) -> str:
    """The elements of a row that was written as a JSON list."""
    return ", ".join(f"value ->> {number}" for number in range(count))


def traceparent(connection: Connection, position: int) -> str | None:
    """The trace in which a fact was taught; None if tracing was off."""
    row = connection.first("SELECT traceparent FROM traces WHERE position = ?", [position])
    return str(row["traceparent"]) if row else None
