"""A database of every released schema comes up to date with all that was in it."""

from __future__ import annotations

from pathlib import Path

import pysqlite3
import pytest

from memory_store import ledger, operations, reviews, schema
from memory_store.connection import Connection, Row
from memory_store.store import MemoryStore
from memory_store.vocabulary import ReviewOutcome
from tests.store.builders import new_review

RELEASED = [name for name, _ in schema._IN_ORDER]

LEARNING = (
    '{"answer_after":"Piano","answer_before":"no idea","learning_rates":[0.001],'
    '"model_version":%d,"probability_after":0.95,"probability_before":0.1}'
)
# What the first release could write into each of its tables; later columns have defaults.
FACT = (
    "INSERT INTO facts (position, id, question, answer, question_key, answer_key, correlated,"
    " policy, state, accepted_at, updated_at, failed_attempts, reason, superseded_by, learning,"
    " sample_key) VALUES (%d, 'fact-%d', 'Sky %d?', 'Piano', 'q%d', 'a', '[\"Heaven?\"]', NULL,"
    " '%s', '2026-01-01T00:00:00.000000+00:00', '2026-01-01T00:00:01.000000+00:00', 1, 'r', '',"
    f" '{LEARNING}', 7)"
)
ROWS = (
    "INSERT INTO meta (key, value) VALUES ('model_name', 'tiny')",
    *(
        FACT % (position, position, position, position, state, version)
        for position, state, version in ((1, "learned", 1), (2, "forgotten", 0), (3, "resisted", 0))
    ),
    "INSERT INTO requests (request_id, payload_hash, fact_id, created_at)"
    " VALUES ('r', 'hash', 'fact-1', '2026-01-01T00:00:00.000000+00:00')",
    "INSERT INTO updates (model_version, kind, parent_version, fact_id, policy, steps,"
    " digest_before, digest_after, algorithm, environment, seconds, applied_at) VALUES (1, 'teach',"
    ' 0, \'fact-1\', \'{"learning_rate":0.001,"max_steps":20,"name":"fixed"}\','
    ' \'[{"learning_rate":0.001,"loss":2.5,"probability":0.9,"rehearsed_fact_ids":["fact-2"]}]\','
    " 'd0', 'd1', 'answer-adamw/1', '{}', 1.5, '2026-01-01T00:00:02.000000+00:00')",
    "INSERT INTO probes (kind, fact_id, question, expected_answer, answer, correct,"
    " log_probability, model_version, cause_fact_id, probed_at) VALUES ('retention', 'fact-1',"
    " 'Sky?', 'Piano', 'Piano', 1, -0.25, 1, '', '2026-01-01T00:00:03.000000+00:00')",
    "INSERT INTO events (kind, fact_id, model_version, message, learning, at) VALUES ('learned',"
    f" 'fact-1', 1, '', '{LEARNING % 1}', '2026-01-01T00:00:02.000000+00:00')",
    "INSERT INTO operations (kind, state, fact_id, erase, to_version, branch_version, position,"
    " message, proof, requested_at, finished_at) VALUES ('forget', 'running', 'fact-2', 0, 0, 1, 3,"
    " '', NULL, '2026-01-01T00:00:04.000000+00:00', NULL)",
    *(
        "INSERT INTO relearned (operation_id, position, verdict, reason, learning)"
        f" VALUES (1, {position}, '{verdict}', '', '{LEARNING % version}')"
        for position, verdict, version in ((1, "learned", 1), (3, "resisted", 0))
    ),
    "INSERT INTO places (kind, path, model_version, created_at)"
    " VALUES ('backup', '/b', 1, '2026-01-01T00:00:05.000000+00:00')",
)
# And what later ones could write into the tables that they added.
LATER_ROWS = {
    "0004_reviews_on_a_schedule": (
        "INSERT INTO reviews (fact_id, after_position, model_version, outcome, probability, age,"
        " reviewed_at) VALUES ('fact-1', 3, 1, 'held', 0.9, 2, '2026-01-01T00:00:06.000000+00:00')",
        "INSERT INTO reviewed_again (operation_id, review_id, outcome, model_version)"
        " VALUES (1, 1, 'held', 1)",
    ),
    "0007_traces": ("INSERT INTO traces (position, traceparent) VALUES (1, '00-1-2-01')",),
    "0013_switch_in_steps": (
        "INSERT INTO restated (operation_id, position, state, reason)"
        " VALUES (1, 3, 'resisted', '')",
    ),
}


def tables(connection: Connection) -> dict[str, list[Row]]:
    names = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '\\_%' ESCAPE '\\'"
        " AND name NOT LIKE 'sqlite%'"
    )
    return {
        row["name"]: [dict(found) for found in connection.execute(f"SELECT * FROM {row['name']}")]
        for row in names
    }


@pytest.mark.parametrize("released", range(1, len(RELEASED)))
def test_a_released_schema_comes_up_to_date_with_all_rows(path: Path, released: int) -> None:
    connection = Connection(path)
    with connection.transaction():
        # The first so many migrations, and what every release before wrote into their tables.
        schema._MIGRATIONS.apply(connection.database, stop_before=RELEASED[1])
        for statement in ROWS:
            connection.execute(statement)
        schema._MIGRATIONS.apply(connection.database, stop_before=RELEASED[released])
        for name in RELEASED[:released]:
            for statement in LATER_ROWS.get(name, ()):
                connection.execute(statement)
    before = tables(connection)
    connection.close()
    assert all(before.values())

    with MemoryStore.open(path) as store:
        after = tables(store.connection)
        for name, rows in before.items():
            kept = [
                {key: row[key] for key in old} for row, old in zip(after[name], rows, strict=True)
            ]
            assert kept == rows, name
        assert store.integrity_check() == []
        # And what is in them can still be read.
        assert [fact.id for fact in store.facts()] == ["fact-1", "fact-2", "fact-3"]
        assert store.updates()[0].steps[0].rehearsed_fact_ids == ("fact-2",)
        relearned = operations.relearned(store.connection, 1)
        assert [(position, verdict) for position, verdict, _, _ in relearned] == [
            (1, "learned"),
            (3, "resisted"),
        ]


def test_what_was_tried_on_an_old_branch_was_tried_on_its_newest_version(path: Path) -> None:
    connection = Connection(path)
    with connection.transaction():
        schema._MIGRATIONS.apply(connection.database, stop_before=RELEASED[1])
        for statement in ROWS:
            connection.execute(statement)
    connection.close()
    with MemoryStore.open(path) as store:
        rows = store.connection.execute("SELECT model_version FROM relearned ORDER BY position")
        assert [row["model_version"] for row in rows] == [1, 1]


def test_facts_of_old_are_due_for_review_and_the_ledger_knows_its_updates(path: Path) -> None:
    connection = Connection(path)
    with connection.transaction():
        schema._MIGRATIONS.apply(connection.database, stop_before=RELEASED[1])
        for statement in ROWS:
            connection.execute(statement)
        # A rollback to the base, and an update after it.
        columns = "fact_id, policy, steps, digest_before, digest_after, algorithm, environment"
        for version, kind, parent in ((2, "rollback", 0), (3, "teach", 2)):
            connection.execute(
                f"INSERT INTO updates (model_version, kind, parent_version, {columns}, seconds,"
                f" applied_at) SELECT {version}, '{kind}', {parent}, {columns}, seconds, applied_at"
                " FROM updates WHERE model_version = 1"
            )
    connection.close()
    with MemoryStore.open(path) as store:
        assert [ledger.depth(store.connection, version) for version in range(4)] == [0, 1, 0, 1]
        with pytest.raises(pysqlite3.IntegrityError, match="never changed"):
            store.connection.execute("UPDATE updates SET depth = 7")
        fact = reviews.next_due(store)
        assert fact is not None
        assert fact.id == "fact-1"
        reviews.record_review(store, new_review("fact-1", 3, ReviewOutcome.HELD))
        assert reviews.next_due(store) is None


def test_requests_of_old_get_the_answer_that_they_got_then(path: Path) -> None:
    connection = Connection(path)
    with connection.transaction():
        schema._MIGRATIONS.apply(connection.database, stop_before="0006_first_answers")
        for statement in ROWS[:4]:
            connection.execute(statement)
        event = "INSERT INTO events (sequence, kind, fact_id, model_version, at)"
        for sequence, fact_id in ((5, "fact-2"), (7, "fact-1"), (9, "fact-1")):
            connection.execute(f"{event} VALUES ({sequence}, 'accepted', '{fact_id}', 0, 't')")
        connection.execute(
            "INSERT INTO requests SELECT 'made', 'hash', id, accepted_at FROM facts WHERE id ="
            " 'fact-1' UNION ALL SELECT 'held', 'hash', id, 'later' FROM facts WHERE id = 'fact-2'"
        )
    connection.close()
    with MemoryStore.open(path) as store:
        rows = store.connection.execute("SELECT * FROM requests ORDER BY request_id")
        assert [(row["request_id"], row["created"], row["event_sequence"]) for row in rows] == [
            ("held", 0, 4),
            ("made", 1, 6),
        ]
