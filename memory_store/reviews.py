"""Reviews: held facts are asked again, and taught again if the weights have lost them.

Each function is one transaction on a store, run by its writer, like the methods of `MemoryStore`.

A review is an input of the history, like a fact: if the history is repeated without a fact, so are
its reviews. So each is stored with its place: after the facts up to a position, and after the
reviews before it. Facts are processed in the order of acceptance, so the place does not depend on
what is repeated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import replace

from memory_store import facts, ledger, probes, schedule
from memory_store.connection import Connection, Row
from memory_store.encoding import (
    read_learning,
    read_policy,
    read_record,
    read_time,
    write_json,
    write_learning,
    write_policy,
    write_time,
)
from memory_store.errors import WrongStateError
from memory_store.lines import Line
from memory_store.store import MemoryStore
from memory_store.vocabulary import (
    HELD,
    EventKind,
    Fact,
    FactState,
    Learning,
    NewReview,
    Policy,
    Retention,
    Review,
    ReviewOutcome,
    Update,
)

# The policy of a review, even if another one contains it.
_WRITTEN = (
    "iif(reviews.policy LIKE '@%', (SELECT first.policy FROM reviews AS first"
    " WHERE first.id = CAST(substr(reviews.policy, 2) AS INTEGER)), reviews.policy)"
)


def next_due(store: MemoryStore) -> Fact | None:
    """The held fact whose review is due longest; None if none is due."""
    fact_id = schedule.next_due(store.connection, store.now())
    return None if fact_id is None else store.fact(fact_id)


def begin_review(store: MemoryStore, fact_id: str) -> None:
    """Records that a review begins, so that a fact that kills the server is not next again.

    Raises:
        FactNotFoundError: no fact has this id.
    """
    with store.transaction():
        schedule.postpone(store.connection, store.fact(fact_id).position, store.now())


def give_back_review(store: MemoryStore, fact_id: str) -> None:
    """Makes a fact due again whose review was abandoned through no fault of its own.

    Raises:
        FactNotFoundError: no fact has this id.
    """
    with store.transaction():
        schedule.make_due(store.connection, store.fact(fact_id).position, store.now())


def record_review(store: MemoryStore, review: NewReview) -> Update | None:
    """Stores a review, its probe, the time of the next one, and the update if there was one.

    The fact stays held, whatever the outcome.

    Returns:
        The row of the ledger, if the fact was taught again.

    Raises:
        FactNotFoundError: no fact has this id.
        LedgerConflictError: the review was not made with the head.
        WrongStateError: the fact is not held.
    """
    with store.transaction():
        at, fact = store.now(), store.fact(review.fact_id)
        if fact.state not in HELD:
            raise WrongStateError(f"Fact {fact.id} is {fact.state}: only held facts are reviewed.")
        ledger.require_head(store.connection, fact.id, review.model_version)
        place = processed_up_to(store.connection)
        age = schedule.age(store.connection, fact.position)
        before = [] if review.probe is None else [review.probe]
        probes.insert(store.connection, before, review.model_version, "", at)
        row = None
        if review.outcome is ReviewOutcome.HELD:
            schedule.go_on(store.connection, fact.position, at)
        elif review.outcome is ReviewOutcome.RETAUGHT:
            row = _retaught(store, fact, review)
        else:
            schedule.begin(store.connection, fact.position, at)
        store.connection.insert(
            "reviews",
            {
                "fact_id": fact.id,
                "after_position": place,
                "model_version": review.model_version,
                "outcome": review.outcome.value,
                "reason": review.reason,
                "retaught_version": row.model_version if row else None,
                "probability": math.exp(review.probe.log_probability) if review.probe else None,
                "age": age,
                "reviewed_at": write_time(at),
                "policy": _shared_policy(store.connection, review.policy),
            },
        )
        return row


def _shared_policy(connection: Connection, policy: Policy | None) -> str | None:
    """The column of a policy: its JSON, or `@` and the id of a review with the same one."""
    text = write_policy(policy)
    last = connection.first(
        f"SELECT id, policy, {_WRITTEN} AS written FROM reviews"
        " WHERE id = (SELECT max(id) FROM reviews)"
    )
    if last is None or text is None or last["written"] != text:
        return text
    return str(last["policy"]) if last["policy"] != text else f"@{last['id']}"


def _retaught(store: MemoryStore, fact: Fact, review: NewReview) -> Update:
    """Stores the update of a review that taught the fact again, with its findings and probes."""
    attempt = review.attempt
    assert attempt is not None
    assert attempt.update is not None
    assert attempt.learning is not None
    at = store.now()
    row = ledger.append_at_head(store.connection, attempt.update, at)
    learning = replace(attempt.learning, model_version=row.model_version)
    facts.note_learning(store.connection, fact.id, learning)
    schedule.begin(store.connection, fact.position, at, row.model_version)
    probes.insert(store.connection, attempt.probes, row.model_version, fact.id, at)
    store.emit(EventKind.RETAUGHT, at, fact_id=fact.id, learning=learning)
    return row


def processed_up_to(connection: Connection) -> int:
    """The last position such that all facts up to it, and none after it, were processed."""
    for state in (FactState.LEARNING, FactState.QUEUED):
        first = connection.number(
            "SELECT position FROM facts WHERE state = ? ORDER BY position LIMIT 1", [state.value]
        )
        if first:
            return first - 1
    return connection.number("SELECT max(position) FROM facts")


BY_AGE = (
    "SELECT age, count(*) AS asked, sum(outcome = 'held') AS held FROM reviews"
    " WHERE probability IS NOT NULL GROUP BY age ORDER BY age"
)


def retention_by_age(store: MemoryStore) -> list[Retention]:
    """How many facts were still held, by the number of updates since they were taught.

    Returns:
        One for each range of ages with reviews, youngest first: 0, 1, 2 to 3, 4 to 7 and so on.
    """
    rows = store.connection.execute(BY_AGE)
    counted: dict[int, tuple[int, int]] = {}
    for row in rows:
        bits = int(row["age"]).bit_length()
        held, asked = counted.get(bits, (0, 0))
        counted[bits] = (held + row["held"], asked + row["asked"])
    return [
        Retention(
            youngest=2 ** (bits - 1) if bits else 0, oldest=2**bits - 1, held=held, asked=asked
        )
        for bits, (held, asked) in counted.items()
    ]


def of_fact(store: MemoryStore, fact_id: str) -> list[Review]:
    """All reviews of one fact, oldest first."""
    rows = store.connection.execute(
        f"SELECT *, {_WRITTEN} AS written FROM reviews WHERE fact_id = ? ORDER BY id", [fact_id]
    )
    return [_review(row) for row in rows]


# -- Undo ------------------------------------------------------------------------------------------


def of_line(store: MemoryStore, ids: Sequence[int], line: Line) -> list[Review]:
    """The reviews, among some, that belong to the history of a line of the ledger, in order.

    One without a row of its own belongs to it if the weights that were asked do.
    """
    rows = store.connection.execute(
        f"SELECT reviews.*, {_WRITTEN} AS written,"
        " (SELECT json_group_array(again.model_version) FROM operations"
        "  CROSS JOIN reviewed_again AS again ON again.operation_id = operations.id"
        "   AND again.review_id = reviews.id WHERE proof IS NOT NULL) AS again"
        " FROM json_each(?) JOIN reviews ON reviews.id = value ORDER BY reviews.id",
        [write_json(list(ids))],
    )
    return [
        _review(row)
        for row in rows
        if (row["retaught_version"] or row["model_version"]) in line
        or any(version in line for version in json.loads(row["again"]))
    ]


def note_again(
    store: MemoryStore,
    operation_id: int,
    review: Review,
    outcome: ReviewOutcome,
    reason: str,
    learning: Learning | None,
    model_version: int,
) -> None:
    """Stores the outcome of a review on the branch of an operation, and the branch's version."""
    store.connection.insert(
        "reviewed_again",
        {
            "operation_id": operation_id,
            "review_id": review.id,
            "outcome": outcome.value,
            "reason": reason,
            "learning": write_learning(learning),
            "model_version": model_version,
        },
    )


def last_done_again(store: MemoryStore, operation_id: int) -> int:
    """Id of the last review that was repeated on the branch of an operation; 0 if none was."""
    return store.connection.number(
        "SELECT max(review_id) FROM reviewed_again WHERE operation_id = ?", [operation_id]
    )


def settle(store: MemoryStore, line: Collection[int] | Line, fact_ids: Sequence[str]) -> None:
    """Gives facts the findings of their last teaching on a line, and its version."""
    rows = store.connection.execute(
        "WITH concerned AS (SELECT value AS id FROM json_each(?))"
        " SELECT fact_id, learning, model_version FROM concerned"
        "  CROSS JOIN events ON events.fact_id = concerned.id"
        "  WHERE kind IN ('learned', 'known', 'retaught')"
        " UNION ALL"
        " SELECT facts.id, relearned.learning, relearned.model_version FROM concerned"
        "  CROSS JOIN facts ON facts.id = concerned.id JOIN operations ON proof IS NOT NULL"
        "  JOIN relearned ON operation_id = operations.id AND relearned.position = facts.position"
        "  WHERE verdict IN ('learned', 'known')"
        " UNION ALL"
        " SELECT reviews.fact_id, learning, again.model_version FROM concerned"
        "  CROSS JOIN reviews ON reviews.fact_id = concerned.id"
        "  JOIN operations ON proof IS NOT NULL"
        "  CROSS JOIN reviewed_again AS again ON again.operation_id = operations.id"
        "   AND again.review_id = reviews.id WHERE again.outcome = 'retaught'"
        " ORDER BY model_version",
        [write_json(list(fact_ids))],
    )
    rows = [row for row in rows if row["model_version"] in line]
    for fact_id, row in {row["fact_id"]: row for row in rows}.items():
        fact, learning = store.fact(fact_id), read_learning(row["learning"])
        if fact.state is FactState.FORGOTTEN or learning is None or _same(learning, fact.learning):
            continue
        facts.note_learning(store.connection, fact_id, learning)
        if fact.state in HELD:
            schedule.begin(store.connection, fact.position, store.now(), row["model_version"])


def _same(learning: Learning, newest: Learning | None) -> bool:
    """Whether both are of one attempt; thinned rows have no rate curve."""
    return newest is not None and replace(learning, curve=()) == replace(newest, curve=())


def _review(row: Row) -> Review:
    return read_record(
        Review,
        row,
        outcome=ReviewOutcome(row["outcome"]),
        reviewed_at=read_time(row["reviewed_at"]),
        policy=read_policy(row["written"]),
    )
