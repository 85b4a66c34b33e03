"""Accepting facts: many in a handful of statements, each with its own answer.

Between two statements the writer waits for the interpreter's lock, which the server's loop holds
most of the time. So their number does not grow with that of the facts: what the memory holds is
looked up for all of them, what becomes of each is decided here, and the rows go in together.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from memory_store import facts, requests
from memory_store.connection import Connection, SqlValue
from memory_store.encoding import read_time, write_json, write_policy, write_strings, write_time
from memory_store.errors import FactExistsError, MemoryStoreError, QueueFullError
from memory_store.records import Accepted, EventKind, Fact, FactState, NewFact
from memory_store.requests import EarlierRequest, payload_hash
from memory_store.sampling import sample_key
from memory_store.schema import SERVED

Answer = Accepted | MemoryStoreError


def accept(
    connection: Connection, new_facts: Sequence[NewFact], at: datetime, max_queued: int | None
) -> list[Answer]:
    """Accepts facts as if one after the other; see `MemoryStore.teach_many`."""
    keys = [facts.question_key(new.question) for new in new_facts]
    batch = _Batch(connection, new_facts, keys, at, max_queued)
    answers = [batch.answer(new, key) for new, key in zip(new_facts, keys, strict=True)]
    batch.store(connection)
    return answers


@dataclass(frozen=True, slots=True)
class _Live:
    fact: Fact
    answer_key: str


class _Batch:
    """What the memory holds of a batch, and the rows that it adds."""

    def __init__(
        self,
        connection: Connection,
        new_facts: Sequence[NewFact],
        keys: Sequence[str],
        at: datetime,
        max_queued: int | None,
    ) -> None:
        self._earlier = requests.find(connection, _given(new.request_id for new in new_facts))
        self._repeated = facts.find_many(connection, {e.fact_id for e in self._earlier.values()})
        self._live = {
            key: _Live(fact, answer_key)
            for key, fact, answer_key in facts.newest_live(connection, set(keys))
        }
        self._taken = set(facts.find_many(connection, _given(new.fact_id for new in new_facts)))
        (self._sequence, self._position, self._version, self._queued) = _ends(connection)
        self._max_queued = max_queued
        self._time = write_time(at)
        self._at = read_time(self._time)  # as it will be read again
        self._fact_rows: list[list[SqlValue]] = []
        self._event_rows: list[list[SqlValue]] = []
        self._request_rows: list[list[SqlValue]] = []
        self._trace_rows: list[list[SqlValue]] = []

    def answer(self, new: NewFact, key: str) -> Answer:
        """Decides what becomes of a fact, after all before it."""
        before = self._sequence
        digest = ""
        if new.request_id is not None:
            digest = payload_hash(new)
            earlier = self._earlier.get(new.request_id)
            if earlier is not None:
                return self._first_answer(new.request_id, digest, earlier)
        answer_key = facts.answer_key(new.answer)
        live = self._live.get(key)
        same = live.fact if live is not None and live.answer_key == answer_key else None
        if new.fact_id in self._taken and (same is None or same.id != new.fact_id):
            return FactExistsError(
                f"The fact id {new.fact_id!r} belongs to another fact. Choose another id, or none."
            )
        if same is None and self._max_queued is not None and self._queued >= self._max_queued:
            return QueueFullError(
                f"The queue is full: {self._queued} facts wait to be learned. Nothing was stored:"
                " repeat the request later, or raise --max-queued."
            )
        fact = same or self._add(new, key, answer_key)
        if new.request_id is not None:
            earlier = EarlierRequest(digest, fact.id, same is None, before)
            self._earlier[new.request_id] = earlier
            self._repeated[fact.id] = fact
            self._request_rows.append([new.request_id, digest, fact.id, same is None, before])
        return Accepted(fact=fact, created=same is None, event_sequence=before)

    def _first_answer(self, request_id: str, digest: str, earlier: EarlierRequest) -> Answer:
        if digest != earlier.payload_hash:
            return requests.used_otherwise(request_id, earlier)
        return Accepted(
            fact=self._repeated[earlier.fact_id],
            created=earlier.created,
            event_sequence=earlier.event_sequence,
            repeated=True,
        )

    def _add(self, new: NewFact, key: str, answer_key: str) -> Fact:
        self._position += 1
        self._sequence += 1
        self._queued += 1
        fact = Fact(
            position=self._position,
            id=new.fact_id or "f" + secrets.token_hex(8),
            question=new.question,
            answer=new.answer,
            correlated_questions=new.correlated_questions,
            policy=new.policy,
            state=FactState.QUEUED,
            accepted_at=self._at,
            updated_at=self._at,
        )
        self._live[key] = _Live(fact, answer_key)
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
        self._event_rows.append([self._sequence, fact.id])
        if new.traceparent is not None:
            self._trace_rows.append([fact.position, new.traceparent])
        return fact

    def store(self, connection: Connection) -> None:
        """Writes all rows, each kind in one statement."""
        if self._fact_rows:
            connection.execute(
                "INSERT INTO facts (position, id, question, answer, question_key, answer_key,"
                " correlated, policy, sample_key, state, accepted_at, updated_at)"
                f" SELECT {_columns(9)}, 'queued', ?, ? FROM json_each(?)",
                [self._time, self._time, write_json(self._fact_rows)],
            )
            connection.execute(
                "INSERT INTO events (sequence, fact_id, kind, model_version, at)"
                f" SELECT {_columns(2)}, ?, ?, ? FROM json_each(?)",
                [
                    EventKind.ACCEPTED.value,
                    self._version,
                    self._time,
                    write_json(self._event_rows),
                ],
            )
        if self._trace_rows:
            connection.execute(
                "INSERT INTO traces (position, traceparent)"
                f" SELECT {_columns(2)} FROM json_each(?)",
                [write_json(self._trace_rows)],
            )
        if self._request_rows:
            connection.execute(
                "INSERT INTO requests (request_id, payload_hash, fact_id, created, event_sequence,"
                f" created_at) SELECT {_columns(5)}, ? FROM json_each(?)",
                [self._time, write_json(self._request_rows)],
            )


def _ends(connection: Connection) -> tuple[int, int, int, int]:
    """The last event, the last position, the head of the ledger, and how many facts are queued."""
    rows = connection.execute(
        "SELECT (SELECT coalesce(max(sequence), 0) FROM events),"
        " (SELECT coalesce(max(position), 0) FROM facts),"
        f" (SELECT coalesce(max(model_version), 0) FROM updates WHERE {SERVED}),"
        " (SELECT count FROM state_counts WHERE state = 'queued')"
    )
    sequence, position, version, queued = map(int, rows[0])
    return sequence, position, version, queued


def _columns(count: int) -> str:
    """The elements of a row that was written as a JSON list."""
    return ", ".join(f"value ->> {number}" for number in range(count))


def _given(values: Iterable[str | None]) -> set[str]:
    return {value for value in values if value is not None}
