"""Erases a text: from the rows of its fact at once, and then from every other row that repeats it.

Indexes find a fact's own rows, which lose the text in the transaction that forgets the fact. Other
rows may repeat it: a model gave the answer to another question, or a fact that was rolled back was
taught again. To find them, whole tables are read page by page, so that other work can go on. `meta`
holds the text meanwhile, so that the search continues after a crash.

A text that belongs to another held fact too stays there, and is reported.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memory_store import facts, identity, meta, operations, unsearched
from memory_store.connection import Connection, Row, SqlValue
from memory_store.encoding import read_strings, write_json, write_strings
from memory_store.sought import Sought, folded
from memory_store.store import MemoryStore
from memory_store.unsearched import ERASED, Unsearched
from memory_store.vocabulary import Fact, FactState, OperationKind, Transition

PAGE_ROWS = 250
# The most texts of one pass over the tables.
TEXTS_TOGETHER = 100
# The most facts that a report names.
NAMED_FACTS = 5
# The model's answers among the findings of an attempt.
SAID_WHILE_LEARNING = ("answer_before", "answer_after")
_PENDING, _KEPT = "erasing:", "kept-text:"
# Set from the end of a search until nothing outside the tables can contain what it removed.
_COPIES = "erased-text-in-copies"

Key = tuple[SqlValue, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A row that repeats the text.

    Attributes:
        table: where it is.
        key: the columns of its key, with their values.
        before: the columns with the text, as they were found.
        after: their new values.
    """

    table: str
    key: Mapping[str, SqlValue]
    before: Mapping[str, SqlValue]
    after: Mapping[str, SqlValue]


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows of a table.

    Attributes:
        changes: the changes to make in them.
        kept: facts that own a text too: id of the erased fact, id of the other, what it owns.
        last: key of the last row; None at the end of the table.
    """

    changes: Sequence[Change]
    kept: Sequence[tuple[str, str, str]]
    last: Key | None


@dataclass(frozen=True, slots=True)
class _Table:
    """How a table is read: its key, the columns that may have texts, and how to clean a row."""

    key: tuple[str, ...]
    columns: tuple[str, ...]
    cleaned: Callable[[Sought, Row], Mapping[str, SqlValue]]


# --- The fact's own rows --------------------------------------------------------------------------


def erase(store: MemoryStore, fact: Fact) -> None:
    """Removes the text of a forgotten fact from its rows, and from those of forgotten twins.

    Twins have the same question and answer, and were rolled back, or forgotten before. Removed text
    is overwritten in the file (`secure_delete`).
    """
    connection = store.connection
    if fact.question:  # else it was erased before
        for twin in _forgotten_twins(connection, fact):
            _erase_rows(connection, twin)
            # Prevents a rollback to weights that hold it.
            operation = operations.insert(
                *(store, OperationKind.FORGET), fact_id=twin.id, erase=True, position=twin.position
            )
            message = f"erased with {fact.id}, which had the same text"
            operations.change(store, operation.id, Transition.JOIN, message=message)
        sought = Sought(fact.id, fact.question, fact.answer, fact.correlated_questions)
        meta.note(connection, f"{_PENDING}{fact.id}", write_json(dataclasses.asdict(sought)))
    _erase_rows(connection, fact)
    identity.count_erasure(connection)


def _forgotten_twins(connection: Connection, fact: Fact) -> list[Fact]:
    return [
        other
        for other in facts.of_question(connection, fact.question)
        if other.id != fact.id
        and other.state is FactState.FORGOTTEN
        and folded(other.answer) == folded(fact.answer)
    ]


def _erase_rows(connection: Connection, fact: Fact) -> None:
    for statement in (
        "UPDATE facts SET question = '', answer = '', question_key = id, answer_key = id,"
        " correlated = '[]', learning = NULL WHERE id = ?",
        "UPDATE probes SET question = '', expected_answer = '', answer = '' WHERE fact_id = ?",
        "UPDATE events SET learning = NULL WHERE fact_id = ?",
    ):
        connection.execute(statement, [fact.id])


# --- All other rows -------------------------------------------------------------------------------


def pending(store: MemoryStore) -> list[Sought]:
    """Returns the erased texts that may still be in other rows."""
    rows = store.connection.execute(
        "SELECT value FROM meta WHERE key >= ? AND key < ? ORDER BY key", [_PENDING, f"{_PENDING}~"]
    )
    found: list[dict[str, Any]] = [json.loads(row["value"]) for row in rows]
    return [Sought(**each | {"correlated": tuple(each["correlated"])}) for each in found]


def look(store: MemoryStore, sought: Sequence[Sought], table: str, after: Key | None) -> Page:
    """Looks for texts in some rows of one of `TABLES`.

    Args:
        store: only read.
        sought: the texts, at most `TEXTS_TOGETHER`.
        table: where.
        after: key of the last row of the page before; None for the first page.
    """
    read = TABLES[table]
    key = ", ".join(read.key)
    where = f"WHERE ({key}) > ({', '.join('?' * len(read.key))})" if after else ""
    rows = store.connection.execute(
        f"SELECT {key}, {', '.join(read.columns)} FROM {table} {where} ORDER BY {key} LIMIT ?",
        [*(after or ()), PAGE_ROWS],
    )
    changes: list[Change] = []
    kept: list[tuple[str, str, str]] = []
    for row in map(dict, rows):
        concerned = _that_may_be_in(row, sought)
        cleaned: dict[str, SqlValue] = {}
        for each in concerned:
            cleaned |= read.cleaned(each, {**row, **cleaned})
        if cleaned:
            before = {column: row[column] for column in cleaned}
            changes.append(Change(table, {name: row[name] for name in read.key}, before, cleaned))
        if table == "facts":
            owned = [(each, _own_text(each, {**row, **cleaned})) for each in concerned]
            kept += [(each.fact_id, str(row["id"]), what) for each, what in owned if what]
    last = tuple(rows[-1][name] for name in read.key) if len(rows) == PAGE_ROWS else None
    return Page(changes, kept, last)


def _that_may_be_in(row: Row, sought: Sequence[Sought]) -> Sequence[Sought]:
    """Returns the texts that a row may have. The row is decoded once for all of them."""
    if "payload_hash" in row:
        return sought[:1]  # it has no text, so any of them will do
    learning: dict[str, Any] = json.loads(row.get("learning") or "null") or {}
    questions = [row.get("question") or "", *read_strings(row.get("correlated") or "[]")]
    texts = [row.get(name) or "" for name in ("answer", "expected_answer", "message", "reason")]
    texts += [learning.get(name) or "" for name in SAID_WHILE_LEARNING]
    text = folded(" ".join((*questions, *texts)))
    keys = {facts.question_key(question) for question in questions if question}
    return [each for each in sought if each.question_key in keys or each.may_be_in(text)]


def clean(store: MemoryStore, changes: Sequence[Change]) -> None:
    """Removes texts where they were found; skips rows that have changed since."""
    with store.transaction():
        for change in changes:
            store.connection.execute(
                f"UPDATE {change.table} SET {', '.join(f'{name} = ?' for name in change.after)}"
                f" WHERE {' AND '.join(f'{name} IS ?' for name in (*change.key, *change.before))}",
                [*change.after.values(), *change.key.values(), *change.before.values()],
            )


def close(
    store: MemoryStore, sought: Sought, kept: Sequence[str] = (), end: Unsearched | None = None
) -> None:
    """Ends the search, and deletes the text here too.

    Args:
        store: the memory.
        sought: the text.
        kept: where it stays, for people, without the text; see `kept_of`.
        end: where the search ended, as `unsearched.rows_from_now` gave it before; None: nothing
            was stored since.
    """
    with store.transaction():
        end = end or unsearched.rows_from_now(store)
        unsearched.note(store, sought.fact_id, end)
        # Of the last search: it may come long before the end of the operation that reports it.
        meta.note(store.connection, f"{_KEPT}{sought.fact_id}", write_json(list(kept)))
        meta.drop(store.connection, f"{_PENDING}{sought.fact_id}")
        meta.note(store.connection, _COPIES, "true")
        identity.count_erasure(store.connection)


def in_copies(store: MemoryStore) -> bool:
    """Whether erased texts may be in the write-ahead log, in copies of the file, or in backups."""
    return meta.noted(store.connection, _COPIES) is not None


def copies_removed(store: MemoryStore) -> None:
    """Records that none of them has erased texts any more."""
    with store.transaction():
        meta.drop(store.connection, _COPIES)


def kept_of(store: MemoryStore, fact_id: str) -> list[str]:
    """Returns where the last search left a fact's text, for people."""
    kept = meta.noted(store.connection, f"{_KEPT}{fact_id}")
    return [] if kept is None else list(read_strings(kept))


def drop_kept(store: MemoryStore, fact_id: str) -> None:
    """Deletes that record, once it was reported."""
    with store.transaction():
        meta.drop(store.connection, f"{_KEPT}{fact_id}")


def kept_by_others(sought: Sought, kept: Sequence[tuple[str, str, str]]) -> list[str]:
    """Returns which other facts own the text, for people; `kept` is that of all pages."""
    by_what: dict[str, list[str]] = {}
    for erased_id, fact_id, what in kept:
        if erased_id == sought.fact_id:
            by_what.setdefault(what, []).append(fact_id)
    return [
        f"{what} stays in {len(ids)} other fact{'s' if len(ids) > 1 else ''}"
        f" ({', '.join(ids[:NAMED_FACTS])}{', ...' if len(ids) > NAMED_FACTS else ''}):"
        " erase these too if it is to go"
        for what, ids in by_what.items()
    ]


def _own_text(sought: Sought, row: Row) -> str:
    """Returns the part of the text that another fact owns, for people; empty if none."""
    if row["id"] == sought.fact_id:
        return ""
    same_question = sought.is_asked_in(row["question"])
    if same_question and folded(row["answer"]) == folded(sought.answer):
        return "the same fact"
    if same_question:
        return "its question"
    related = [text for text in read_strings(row["correlated"]) if not sought.is_asked_in(text)]
    own = (row["question"], row["answer"], *related)
    if any(map(sought.is_in, own)) or folded(row["answer"]) == folded(sought.answer):
        return "its text"
    return ""


def _clean_fact(sought: Sought, row: Row) -> Mapping[str, SqlValue]:
    correlated = read_strings(row["correlated"])
    others = tuple(text for text in correlated if not sought.is_asked_in(text))
    asks_it = sought.is_asked_in(row["question"])
    return {
        **({"correlated": write_strings(others)} if others != correlated and not asks_it else {}),
        **_clean_message("reason")(sought, row),
        **_clean_learning(sought, row),
    }


def _clean_probe(sought: Sought, row: Row) -> Mapping[str, SqlValue]:
    after: dict[str, SqlValue] = {}
    # The texts of the probe's own fact stay, and are reported.
    if sought.is_asked_in(row["question"]) and not row["asked_by_its_fact"]:
        after["question"] = ERASED
    if sought.is_said_in(row["expected_answer"]) and not row["expected_by_its_fact"]:
        after["expected_answer"] = ERASED
    if sought.is_said_in(row["answer"]):
        after["answer"] = ERASED
    return after


def _clean_message(name: str) -> Callable[[Sought, Row], Mapping[str, SqlValue]]:
    def cleaned(sought: Sought, row: Row) -> Mapping[str, SqlValue]:
        return {name: ERASED} if sought.is_in(row[name]) else {}

    return cleaned


def _clean_request(sought: Sought, row: Row) -> Mapping[str, SqlValue]:
    # The digest of the request would confirm a guess.
    return (
        {"payload_hash": "erased"} if row["of_erased"] and row["payload_hash"] != "erased" else {}
    )


def _clean_learning(sought: Sought, row: Row) -> Mapping[str, SqlValue]:
    # JSON null refers to the findings of the event's fact.
    learning: dict[str, Any] | None = json.loads(row["learning"] or "null")
    if learning is None:
        return {}
    said = [name for name in SAID_WHILE_LEARNING if sought.is_said_in(learning.get(name) or "")]
    return {"learning": write_json(learning | dict.fromkeys(said, ""))} if said else {}


def _both(name: str) -> Callable[[Sought, Row], Mapping[str, SqlValue]]:
    message = _clean_message(name)
    return lambda sought, row: {**message(sought, row), **_clean_learning(sought, row)}


# Every table whose rows may repeat a text of another fact.
TABLES: Mapping[str, _Table] = {
    "facts": _Table(
        ("position",), ("id", "question", "answer", "correlated", "reason", "learning"), _clean_fact
    ),
    "probes": _Table(
        ("id",),
        (
            "question",
            "answer",
            "expected_answer",
            "(SELECT facts.answer = expected_answer FROM facts WHERE facts.id = probes.fact_id)"
            " AS expected_by_its_fact",
            "(SELECT facts.question = probes.question FROM facts WHERE facts.id = probes.fact_id)"
            " AS asked_by_its_fact",
        ),
        _clean_probe,
    ),
    "requests": _Table(
        ("request_id",),
        (
            "payload_hash",
            "(SELECT question = '' FROM facts WHERE id = requests.fact_id) AS of_erased",
        ),
        _clean_request,
    ),
    "events": _Table(("sequence",), ("message", "learning"), _both("message")),
    "operations": _Table(("id",), ("message",), _clean_message("message")),
    "reviews": _Table(("id",), ("reason",), _clean_message("reason")),
    "relearned": _Table(("operation_id", "position"), ("reason", "learning"), _both("reason")),
    "restated": _Table(("operation_id", "position"), ("reason",), _clean_message("reason")),
    "reviewed_again": _Table(
        ("operation_id", "review_id"), ("reason", "learning"), _both("reason")
    ),
}
