"""How a schema is changed: by the example of two migrations of releases to come."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from memory_store import operations, reviews, schema, undo
from memory_store.connection import Connection, Row
from memory_store.errors import StoreUnusableError
from memory_store.store import MemoryStore
from memory_store.vocabulary import ReviewOutcome
from tests.store import integrity
from tests.store.builders import ledger_rows, new_fact, new_review, teach_learned
from tests.store.example_migrations import EXAMPLES, NAMES, next_release


@pytest.fixture
def older(path: Path) -> Path:
    """A database of this release, with something in its tables."""
    with MemoryStore.open(path) as store:
        for question in ("Sky?", "Sea?", "Land?"):
            teach_learned(store, question)
        store.teach(new_fact("Moon?", request_id="request"))
        first = store.facts()[0].id
        reviews.record_review(store, new_review(first, 3, ReviewOutcome.HELD))
        undo.request_forget(store, first)
    return path


def tables(connection: Connection) -> dict[str, list[Row]]:
    names = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '\\_%' ESCAPE '\\'"
        " AND name NOT LIKE 'sqlite%'"
    )
    return {
        row["name"]: [dict(found) for found in connection.execute(f"SELECT * FROM {row['name']}")]
        for row in names
    }


def contents(path: Path) -> dict[str, list[Row]]:
    connection = Connection(path, read_only=True)
    found = tables(connection)
    connection.close()
    return found


@pytest.mark.parametrize("count", range(1, len(EXAMPLES) + 1))
def test_an_older_schema_comes_up_to_date_with_all_rows(older: Path, count: int) -> None:
    before = contents(older)
    with next_release(count), MemoryStore.open(older) as store:
        after = tables(store.connection)
        for name, rows in before.items():
            kept = [
                {key: row[key] for key in old} for row, old in zip(after[name], rows, strict=True)
            ]
            assert kept == rows, name
        assert integrity.problems(store.connection) == []
        # What the migrations made of the rows that were there.
        assert all(row["note"] == f"from {row['accepted_at']}" for row in after["facts"])
        assert ("days" in after) == (count == 2)
        # And what is in them can still be read.
        assert [fact.question for fact in store.facts()] == ["Sky?", "Sea?", "Land?", "Moon?"]
        assert [update.model_version for update in ledger_rows(store.connection)] == [1, 2, 3]
        assert operations.oldest_open(store) is not None


def test_a_new_database_is_that_of_one_that_came_up_to_date(path: Path, tmp_path: Path) -> None:
    MemoryStore.open(path).close()
    new = tmp_path / "new.db"
    with next_release():
        MemoryStore.open(path).close()
        MemoryStore.open(new).close()
    assert contents(path).keys() == contents(new).keys()


def test_a_migration_that_breaks_off_leaves_all_as_it_was(older: Path) -> None:
    def broken(database: Database) -> None:
        database.execute("DROP TABLE reviews")
        raise RuntimeError("killed")

    before = contents(older)
    with next_release(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "IN_ORDER", (*schema.IN_ORDER, ("9002_broken", broken)))
        with pytest.raises(RuntimeError, match="killed"):
            MemoryStore.open(older)
    assert contents(older) == before  # without the migrations before it, too
    connection = Connection(older, read_only=True)
    with next_release():
        assert schema.lacking_migrations(connection) == list(NAMES)
    connection.close()
    with next_release(), MemoryStore.open(older) as store:
        assert integrity.problems(store.connection) == []


def test_a_database_that_lacks_a_migration_is_not_read_without_it(older: Path) -> None:
    with next_release(), pytest.raises(StoreUnusableError, match="Start the server once"):
        MemoryStore.open(older, read_only=True)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_database_from_before_the_first_release_is_refused(path: Path, read_only: bool) -> None:
    connection = Connection(path)
    with connection.transaction():
        migrations = Migrations("continual.memory_store")
        migrations(name="0001_first_tables")(
            lambda database: database.execute("CREATE TABLE facts (id TEXT)")
        )
        migrations.apply(connection.database)
    assert schema.was_never_released(connection)
    connection.close()
    before = contents(path)
    with pytest.raises(StoreUnusableError, match=r"before the first release.*another data folder"):
        MemoryStore.open(path, read_only=read_only)
    assert contents(path) == before
    assert list(path.parent.glob("*.before-*")) == []
