"""Facts: when two are the same, which states may follow which, and their rows."""

from __future__ import annotations

import hashlib
import itertools
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime

from memory_store import companion_sampling, schedule
from memory_store.connection import Connection, Row, SqlValue
from memory_store.encoding import (
    read_learning,
    read_policy,
    read_record,
    read_strings,
    read_time,
    write_learning,
    write_policy,
    write_time,
)
from memory_store.errors import FactNotFoundError, WrongStateError
from memory_store.tables import LIVE
from memory_store.vocabulary import HELD, Fact, FactState, Learning, Policy

# The states that may follow each state. Only the end of an operation does otherwise: see `restate`.
TRANSITIONS: dict[FactState, frozenset[FactState]] = {
    FactState.QUEUED: frozenset({FactState.LEARNING, FactState.FORGOTTEN}),
    FactState.LEARNING: frozenset(
        {
            FactState.QUEUED,  # released, or failed and tried again later
            FactState.LEARNED,
            FactState.KNOWN,
            FactState.RESISTED,
            FactState.QUARANTINED,
        }
    ),
    FactState.LEARNED: frozenset({FactState.SUPERSEDED, FactState.FORGOTTEN}),
    FactState.KNOWN: frozenset({FactState.SUPERSEDED, FactState.FORGOTTEN}),
    FactState.RESISTED: frozenset({FactState.FORGOTTEN}),
    FactState.QUARANTINED: frozenset({FactState.FORGOTTEN}),
    FactState.SUPERSEDED: frozenset({FactState.FORGOTTEN}),
    FactState.FORGOTTEN: frozenset(),
}


def question_key(question: str) -> str:
    """Equal for equal questions, ignoring case, spacing and Unicode composition."""
    # Case folding can undo the composition, so it is done before and after.
    return _digest(_composed(_composed(question).casefold()))


def answer_key(answer: str) -> str:
    """Equal for equal answers, ignoring spacing and Unicode composition."""
    return _digest(_composed(answer))


def _composed(text: str) -> str:
    composed = text if text.isascii() else unicodedata.normalize("NFC", text)
    return " ".join(composed.split())


def _digest(text: str) -> str:
    # A digest, so that indexes stay small for long questions.
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def find(connection: Connection, fact_id: str) -> Fact | None:
    """The fact with this id, if there is one."""
    row = connection.first("SELECT * FROM facts WHERE id = ?", [fact_id])
    return _fact(row) if row else None


def get(connection: Connection, fact_id: str) -> Fact:
    """The fact with this id.

    Raises:
        FactNotFoundError: there is none.
    """
    fact = find(connection, fact_id)
    if fact is None:
        raise FactNotFoundError(
            f"No fact has the id {fact_id!r}. List the facts to see which there are."
        )
    return fact


def find_by_question(connection: Connection, question: str) -> Fact | None:
    """The newest fact of this question; a live one takes precedence."""
    row = connection.first(
        f"SELECT * FROM facts WHERE question_key = ? ORDER BY {LIVE} DESC, position DESC LIMIT 1",
        [question_key(question)],
    )
    return _fact(row) if row else None


def of_question(connection: Connection, question: str) -> list[Fact]:
    """All facts of this question, oldest first."""
    rows = connection.execute(
        "SELECT * FROM facts WHERE question_key = ? ORDER BY position", [question_key(question)]
    )
    return [_fact(row) for row in rows]


def listing(
    connection: Connection,
    position: int,
    limit: int,
    states: Sequence[FactState],
    *,
    newest_first: bool = False,
) -> list[Fact]:
    """At most `limit` facts after a position in the order of acceptance, or in the reverse order.

    Args:
        connection: of the store.
        position: the last one that was listed; 0 to begin with the oldest or the newest.
        limit: number of facts.
        states: those that are listed; empty for all.
        newest_first: the reverse order.
    """
    beyond, order = "position > ?", "ORDER BY position"
    if newest_first:
        position, beyond, order = position or 2**63 - 1, "position < ?", "ORDER BY position DESC"
    chosen = sorted(set(states))
    bounds: list[SqlValue] = [position]
    if chosen:
        # `state IN (...)` would sort all facts of these states; the first of each are enough.
        first = f"SELECT position FROM facts WHERE state = ? AND {beyond} {order} LIMIT ?"
        bounds = [value for state in chosen for value in (state.value, position, limit)]
        beyond = f"position IN ({' UNION ALL '.join([f'SELECT * FROM ({first})'] * len(chosen))})"
    rows = connection.execute(
        f"SELECT * FROM facts WHERE {beyond} {order} LIMIT ?", [*bounds, limit]
    )
    return [_fact(row) for row in rows]


def count_by_state(connection: Connection) -> dict[FactState, int]:
    """The number of facts in each state; every state is present."""
    rows = connection.execute("SELECT state, count FROM state_counts")
    found = {row["state"]: int(row["count"]) for row in rows}
    return {state: found[state] for state in FactState}


def claim_oldest(connection: Connection, at: datetime) -> Fact | None:
    """Moves the oldest queued fact to `learning`; None if none is queued."""
    row = connection.first(
        "UPDATE facts SET state = 'learning', updated_at = ? WHERE position ="
        " (SELECT position FROM facts WHERE state = 'queued' ORDER BY position LIMIT 1)"
        " RETURNING *",
        [write_time(at)],
    )
    return _fact(row) if row else None


def change_state(
    connection: Connection,
    fact_id: str,
    to: FactState,
    at: datetime,
    *,
    reason: str = "",
    failed_attempts: int | None = None,
    learning: Learning | None = None,
    tried_policy: Policy | None = None,
) -> Fact:
    """Moves a fact to another state, if `TRANSITIONS` permits it.

    Args:
        connection: of the store.
        fact_id: of the fact.
        to: the new state.
        at: the time of the change.
        reason: replaces the old one, even if empty.
        failed_attempts: None keeps the number.
        learning: None keeps the findings.
        tried_policy: of an attempt that ends; None keeps the previous one.

    Raises:
        FactNotFoundError: no fact has this id.
        WrongStateError: `to` may not follow the fact's state.
    """
    sources = [state for state, following in TRANSITIONS.items() if to in following]
    rows = connection.execute(
        "UPDATE facts SET state = ?, updated_at = ?, reason = ?,"
        " failed_attempts = coalesce(?, failed_attempts), learning = coalesce(?, learning),"
        " tried_policy = coalesce(?, tried_policy)"
        f" WHERE id = ? AND state IN ({', '.join('?' * len(sources))}) RETURNING *",
        [
            to.value,
            write_time(at),
            reason,
            failed_attempts,
            write_learning(learning),
            write_policy(tried_policy),
            fact_id,
            *(source.value for source in sources),
        ],
    )
    if not rows:
        raise _wrong_state(get(connection, fact_id), to)
    return _fact(rows[0])


def _wrong_state(fact: Fact, to: FactState) -> WrongStateError:
    following = ", ".join(sorted(TRANSITIONS[fact.state])) or "none"
    return WrongStateError(
        f"Fact {fact.id} is {fact.state} and cannot become {to}; states that may follow: "
        f"{following}. Read the fact again before going on."
    )


def note_policy(connection: Connection, fact_id: str, policy: Policy | None) -> None:
    """Stores the policy of an attempt that changes no state yet; None keeps the previous one."""
    connection.execute(
        "UPDATE facts SET tried_policy = coalesce(?, tried_policy) WHERE id = ?",
        [write_policy(policy), fact_id],
    )


def note_learning(connection: Connection, fact_id: str, learning: Learning) -> None:
    """Stores the findings of the attempt that taught the fact to the served weights."""
    connection.execute(
        "UPDATE facts SET learning = ? WHERE id = ?", [write_learning(learning), fact_id]
    )


def supersede_older(connection: Connection, newer: Fact, at: datetime) -> list[str]:
    """Retires older answers to the newer fact's question; returns their ids, oldest first."""
    rows = connection.execute(
        "UPDATE facts SET state = 'superseded', superseded_by = ?, updated_at = ?"
        f" WHERE question_key = ? AND position < ? AND {LIVE} AND state IN ('learned', 'known')"
        " RETURNING position, id",
        [newer.id, write_time(at), question_key(newer.question), newer.position],
    )
    return [row["id"] for row in sorted(rows, key=lambda row: int(row["position"]))]


def restate(
    connection: Connection,
    position: int,
    state: FactState,
    at: datetime,
    *,
    reason: str = "",
    learning: Learning | None = None,
    taught: int | None = None,
) -> None:
    """Sets the state of a fact on a branch that will be served, whatever it was before.

    The reviews of a held fact start again with the first interval.

    Args:
        connection: of the store.
        position: of the fact.
        state: the new state.
        at: the time of the change.
        reason: replaces the old one.
        learning: None keeps the findings.
        taught: the version of the branch that taught it; None if an earlier one did.
    """
    connection.execute(
        "UPDATE facts SET state = ?, updated_at = ?, reason = ?, superseded_by = '',"
        " learning = coalesce(?, learning) WHERE position = ?",
        [state.value, write_time(at), reason, write_learning(learning), position],
    )
    if state in HELD:
        schedule.begin(connection, position, at, taught)


def queue_again(connection: Connection, position: int, at: datetime) -> None:
    """Queues a fact as if it had never been tried, in its place of the order."""
    connection.execute(
        "UPDATE facts SET state = 'queued', updated_at = ?, reason = '', superseded_by = '',"
        " failed_attempts = 0, learning = NULL WHERE position = ?",
        [write_time(at), position],
    )


def settle_superseded(connection: Connection, question_keys: Iterable[str], at: datetime) -> None:
    """Makes the newest learned, known or superseded answer to each question the current one.

    It is restored if it was superseded; each older one is superseded by the next.
    """
    for key in sorted(set(question_keys)):
        rows = connection.execute(
            "SELECT position, id, state, superseded_by FROM facts WHERE question_key = ?"
            " AND state IN ('learned', 'known', 'superseded') ORDER BY position",
            [key],
        )
        for row, newer in itertools.zip_longest(rows, rows[1:]):
            if newer is not None:
                connection.execute(
                    "UPDATE facts SET state = 'superseded', superseded_by = ?, updated_at = ?"
                    " WHERE position = ? AND superseded_by <> ?",
                    [newer["id"], write_time(at), row["position"], newer["id"]],
                )
            elif row["state"] == FactState.SUPERSEDED:
                taught = connection.execute(
                    "SELECT 1 FROM updates WHERE fact_id = ? AND kind IN ('teach', 'relearn')"
                    " LIMIT 1",
                    [row["id"]],
                )
                state = FactState.LEARNED if taught else FactState.KNOWN
                restate(connection, row["position"], state, at)


def in_state(connection: Connection, state: FactState) -> list[str]:
    """Ids of all facts in a state, oldest first. For states with few facts, such as `learning`."""
    rows = connection.execute(
        "SELECT id FROM facts WHERE state = ? ORDER BY position", [state.value]
    )
    return [row["id"] for row in rows]


def _fact(row: Row) -> Fact:
    return read_record(
        Fact,
        row,
        correlated_questions=read_strings(row["correlated"]),
        policy=read_policy(row["policy"]),
        state=FactState(row["state"]),
        accepted_at=read_time(row["accepted_at"]),
        updated_at=read_time(row["updated_at"]),
        learning=read_learning(row["learning"]),
        tried_policy=read_policy(row["tried_policy"]),
    )


def companions(connection: Connection, fact: Fact, limit: int) -> list[Fact]:
    """At most `limit` held facts with other questions, as the companions of a fact.

    The choice depends on ids only; see `memory_store.companion_sampling`.
    """
    key = question_key(fact.question)
    return [
        get(connection, id_)
        for id_ in companion_sampling.sample_ids(connection, fact.id, key, limit)
    ]
