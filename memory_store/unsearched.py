"""Answers recorded after the search for an erased text, from weights that still held it.

The search is repeated when the weights are rebuilt, if the process still knows the text. After a
restart it does not: not even a digest is stored, because it would confirm a guess. Then the answers
in between are removed unread.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from datetime import datetime

from memory_store import meta
from memory_store.encoding import read_time, write_json, write_time
from memory_store.store import MemoryStore
from memory_store.vocabulary import FactState

# The most rows of one transaction.
ROWS_AT_ONCE = 500
# Replaces an erased text where an empty text has a meaning.
ERASED = "(erased)"
_UNSEARCHED = "unsearched:"


@dataclass(frozen=True, slots=True)
class Unsearched:
    """The rows that no search has read.

    Attributes:
        since: rows from this time on.
        probe: probes after this id.
        event: events after this sequence.
    """

    since: datetime
    probe: int
    event: int


def rows_from_now(store: MemoryStore) -> Unsearched:
    """The rows that a search that begins now may miss."""
    [last] = store.connection.execute(
        "SELECT (SELECT coalesce(max(id), 0) FROM probes) AS probe,"
        " (SELECT coalesce(max(sequence), 0) FROM events) AS event"
    )
    return Unsearched(store.now(), last["probe"], last["event"])


def note(store: MemoryStore, fact_id: str, rows: Unsearched) -> None:
    """Records what a search has missed, if the served weights may still hold the fact."""
    if store.fact(fact_id).state is FactState.FORGOTTEN:
        drop(store, fact_id)
        return
    key = f"{_UNSEARCHED}{fact_id}"
    if meta.noted(store.connection, key) is None:  # the first search has missed the most
        value = write_json(dataclasses.asdict(rows) | {"since": write_time(rows.since)})
        meta.note(store.connection, key, value)


def of_fact(store: MemoryStore, fact_id: str) -> Unsearched | None:
    """The rows that no search for an erased fact has read; None if there are none."""
    noted = meta.noted(store.connection, f"{_UNSEARCHED}{fact_id}")
    if noted is None:
        return None
    values = json.loads(noted)
    return Unsearched(read_time(values["since"]), values["probe"], values["event"])


def drop(store: MemoryStore, fact_id: str) -> None:
    """Deletes that record, once nothing is left to do."""
    with store.transaction():
        meta.drop(store.connection, f"{_UNSEARCHED}{fact_id}")


def remove_probes(store: MemoryStore, after: int) -> int:
    """Removes the answers of some probes after an id; returns the number of changed rows."""
    changed = store.connection.execute(
        "UPDATE probes SET answer = ? WHERE id > ? AND id <= ? AND answer NOT IN ('', ?)"
        " RETURNING id",
        [ERASED, after, after + ROWS_AT_ONCE, ERASED],
    )
    return len(changed)


def remove_events(store: MemoryStore, after: int) -> int:
    """Removes the answers in some events after a sequence; returns the number of changed rows."""
    changed = store.connection.execute(
        "UPDATE events SET learning = json_set(learning, '$.answer_before', '', '$.answer_after',"
        " '') WHERE sequence > ? AND sequence <= ? AND json_type(learning) = 'object'"
        " AND (json_extract(learning, '$.answer_before') <> ''"
        "  OR json_extract(learning, '$.answer_after') <> '') RETURNING sequence",
        [after, after + ROWS_AT_ONCE],
    )
    return len(changed)
