"""The database file: how it is opened, what its schema is, and which files are refused."""

from __future__ import annotations

import ast
from pathlib import Path

import pysqlite3
import pytest

import memory_store
from memory_store import ledger, operations, paging, reviews, undo
from memory_store.connection import Connection, require_safe_sqlite
from memory_store.errors import StoreFailedError, StoreUnusableError
from memory_store.facts import companions, count_by_state
from memory_store.probes import of_fact as probes_of
from memory_store.store import MemoryStore
from memory_store.vocabulary import FactState, ReviewOutcome
from tests.store import integrity
from tests.store.builders import (
    learning,
    ledger_rows,
    new_fact,
    new_probe,
    new_review,
    new_update,
    record_learned,
    teach_learned,
)

SCHEMA = (Path(__file__).parent / "schema.sql").read_text(encoding="utf-8")


def test_the_schema_is_pinned(store: MemoryStore) -> None:
    """A change of the schema needs a new migration: released ones never change."""
    rows = store.connection.execute(
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL"
        " AND name NOT LIKE 'sqlite%' AND tbl_name <> '_sqlite_migrations' ORDER BY rowid"
    )
    assert "".join(f"{row['sql']};\n" for row in rows) == SCHEMA


def test_a_commit_is_durable_and_the_log_is_ours(store: MemoryStore) -> None:
    def pragma(name: str) -> object:
        return next(iter(store.connection.execute(f"PRAGMA {name}")[0]))

    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 2  # FULL
    assert pragma("foreign_keys") == 1
    assert pragma("secure_delete") == 1
    assert pragma("busy_timeout") == 5000
    assert store.connection.database.conn.isolation_level is None


def test_what_is_stored_is_found_again(path: Path) -> None:
    with MemoryStore.open(path) as store:
        fact = teach_learned(store)
        store.record_probes([new_probe(fact.id)], 1)
        updates, events, probes = (
            ledger_rows(store.connection),
            store.events(),
            probes_of(store.connection, fact.id),
        )
    with MemoryStore.open(path) as store:
        assert store.fact(fact.id) == fact
        assert (ledger_rows(store.connection), store.events()) == (updates, events)
        assert probes_of(store.connection, fact.id) == probes
        assert integrity.problems(store.connection) == []


def test_the_ledger_and_the_facts_cannot_be_rewritten(store: MemoryStore) -> None:
    fact = teach_learned(store)
    copied = (
        "policy, steps, digest_before, digest_after, algorithm, environment, seconds, applied_at,"
        " depth"
    )
    for sql in (
        "UPDATE updates SET digest_after = 'x'",
        "DELETE FROM updates",
        "DELETE FROM facts",
        f"INSERT INTO updates SELECT 3, kind, 0, fact_id, {copied} FROM updates",
        f"INSERT INTO updates SELECT 2, kind, 2, fact_id, {copied} FROM updates",
        f"INSERT INTO updates SELECT 2, 'undo', 1, fact_id, {copied} FROM updates",
        "UPDATE facts SET state = 'lost'",
        f"INSERT INTO updates SELECT 2, kind, 1, 'nobody', {copied} FROM updates",
    ):
        with pytest.raises(pysqlite3.IntegrityError):
            store.connection.execute(sql)
    assert store.fact(fact.id) == fact
    assert len(ledger_rows(store.connection)) == 1


def test_a_reader_sees_what_was_committed_and_writes_nothing(
    path: Path, store: MemoryStore
) -> None:
    with MemoryStore.open(path, read_only=True) as reader:
        with store.transaction():
            store.teach(new_fact())
            assert count_by_state(reader.connection)[FactState.QUEUED] == 0
        with reader.transaction():
            assert count_by_state(reader.connection)[FactState.QUEUED] == 1
            store.teach(new_fact("other"))
            assert count_by_state(reader.connection)[FactState.QUEUED] == 1  # one view
            store.connection.execute("PRAGMA busy_timeout = 0")
            assert not store.connection.checkpoint()  # what the reader needs stays in the log
        assert count_by_state(reader.connection)[FactState.QUEUED] == 2
        with pytest.raises(StoreUnusableError, match="write"):
            reader.teach(new_fact("third"))


def test_a_checkpoint_empties_the_log(path: Path, store: MemoryStore) -> None:
    store.teach(new_fact())
    log = path.with_name(path.name + "-wal")
    assert log.stat().st_size > 0
    assert store.connection.checkpoint()
    assert log.stat().st_size == 0


def test_a_nested_transaction_fails_alone(store: MemoryStore) -> None:
    with store.transaction():
        store.teach(new_fact("kept", fact_id="kept"))
        with pytest.raises(ZeroDivisionError), store.transaction():  # noqa: PT012
            store.teach(new_fact("lost", fact_id="lost"))
            with store.transaction():
                store.teach(new_fact("deeper", fact_id="deeper"))
            raise ZeroDivisionError
        store.teach(new_fact("also kept", fact_id="also"))
    assert [(fact.id, fact.position) for fact in store.facts()] == [("kept", 1), ("also", 2)]
    assert [event.sequence for event in store.events()] == [1, 2]
    with pytest.raises(ZeroDivisionError), store.transaction():  # noqa: PT012
        store.teach(new_fact("lost"))
        raise ZeroDivisionError
    assert len(store.facts()) == 2


def test_a_full_disk_refuses_and_goes_on(store: MemoryStore) -> None:
    pages = store.connection.execute("PRAGMA page_count")[0]["page_count"]
    store.connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnusableError, match="No space") as caught:
        store.teach(new_fact("q" * 20_000))
    assert not isinstance(caught.value, StoreFailedError)
    assert not store.connection.in_transaction
    assert store.facts() == []
    store.connection.execute(f"PRAGMA max_page_count = {pages + 100}")
    assert store.teach(new_fact("q" * 20_000)).created


def test_a_missing_folder_or_file_is_named(tmp_path: Path, path: Path) -> None:
    with pytest.raises(StoreUnusableError, match="missing"):
        MemoryStore.open(tmp_path / "missing" / "memory.db")
    with pytest.raises(StoreUnusableError, match=r"memory\.db"):
        MemoryStore.open(path, read_only=True)
    assert not path.exists()


def test_strange_paths_work(tmp_path: Path) -> None:
    path = tmp_path / "a ?b#c%20 é.db"
    with MemoryStore.open(path) as store, MemoryStore.open(path, read_only=True):
        store.teach(new_fact())
    assert path.exists()


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("damage", ["no database", "cut", "schema"])
def test_a_damaged_file_is_refused_with_advice(path: Path, damage: str, read_only: bool) -> None:
    with MemoryStore.open(path) as store:
        store.teach(new_fact())
        store.connection.checkpoint()
    content = bytearray(path.read_bytes())
    if damage == "no database":
        content[:] = b"hello" * 2000
    elif damage == "cut":
        del content[len(content) // 2 :]
    else:
        content[100:4096] = b"\xff" * 3996
    path.write_bytes(content)
    with pytest.raises(StoreUnusableError, match=r"memory\.db is damaged.*restore a backup"):
        MemoryStore.open(path, read_only=read_only)


def test_damage_that_shows_later_is_fatal(path: Path) -> None:
    with MemoryStore.open(path) as store:
        for number in range(50):
            store.teach(new_fact(f"{number}" * 500))
        store.connection.checkpoint()
    content = bytearray(path.read_bytes())
    page = content.index(b"42" * 500) // 4096  # the leaf with that question
    content[4096 * page : 4096 * (page + 1)] = b"\xff" * 4096
    path.write_bytes(content)
    with MemoryStore.open(path) as store, pytest.raises(StoreFailedError, match="damaged"):
        store.facts()


@pytest.mark.parametrize("read_only", [False, True])
def test_a_newer_schema_is_refused(path: Path, read_only: bool) -> None:
    with MemoryStore.open(path) as store:
        store.connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
            " VALUES ('continual.memory_store', '0099_dreams', '')"
        )
    with pytest.raises(StoreUnusableError, match=r"0099_dreams.*Upgrade"):
        MemoryStore.open(path, read_only=read_only)


def test_a_database_of_another_program_is_refused(path: Path) -> None:
    connection = Connection(path)
    connection.execute("CREATE TABLE theirs (id INTEGER)")
    connection.close()
    with pytest.raises(StoreUnusableError, match="another program"):
        MemoryStore.open(path)
    connection = Connection(path)
    assert connection.database.table_names() == ["theirs"]
    connection.close()


def test_an_old_schema_is_not_touched_by_a_reader(path: Path) -> None:
    Connection(path).close()
    with pytest.raises(StoreUnusableError, match="older release"):
        MemoryStore.open(path, read_only=True)


def test_a_locked_file_is_named(path: Path, store: MemoryStore) -> None:
    other = Connection(path)
    other.execute("PRAGMA busy_timeout = 0")
    with store.transaction(), pytest.raises(StoreUnusableError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.close()


def test_an_unsafe_sqlite_is_refused() -> None:
    for version in [(3, 51, 2), (3, 7, 0)]:
        with pytest.raises(StoreUnusableError, match=r"3\.51\.3 or newer"):
            require_safe_sqlite(version)
    require_safe_sqlite((3, 51, 3))
    require_safe_sqlite(pysqlite3.sqlite_version_info)


def test_nothing_opens_the_standard_sqlite() -> None:
    for module in Path(memory_store.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {"sqlite3", "_sqlite3"} & {name.split(".")[0] for name in names}, module


def test_the_integrity_check_finds_a_wrong_count(path: Path) -> None:
    with MemoryStore.open(path) as store:
        store.teach(new_fact())
        store.connection.execute("UPDATE state_counts SET count = 7 WHERE state = 'known'")
        assert integrity.problems(store.connection) == ["the count of known facts is wrong"]


def test_hot_paths_never_scan_or_sort_all_facts(store: MemoryStore) -> None:
    """Query plans, not seconds: a scan is slow at a million facts on any machine."""
    for number in range(3):
        teach_learned(store, f"q{number}")
    statements: list[str] = []
    store.connection.database.conn.set_trace_callback(statements.append)
    states = [FactState.LEARNED, FactState.KNOWN]
    fact = store.teach(new_fact("one more", request_id="r", fact_id="more")).fact
    store.claim()
    store.record_failure(fact.id, "r", 3)
    store.claim()
    record_learned(store, new_update(fact.id, 3), learning(), [new_probe(fact.id)])
    store.release_claims(3)
    paging.page(store, 2)
    paging.page(store, 2, "", states)
    count_by_state(store.connection)
    companions(store.connection, fact, 4)
    ledger.of_fact(store.connection, fact.id)
    ledger_rows(store.connection)
    probes_of(store.connection, fact.id)
    store.events()
    store.events(fact_ids=["a", "b"])
    ledger.at_versions(store.connection, ledger.lineage(store.connection, 4))
    reviews.next_due(store)
    reviews.record_review(store, new_review(fact.id, 4, ReviewOutcome.HELD))
    reviews.record_review(store, new_review(fact.id, 4, ReviewOutcome.RETAUGHT))
    reviews.of_fact(store, fact.id)
    operations.oldest_open(store)
    undo.request_forget(store, fact.id)
    store.connection.database.conn.set_trace_callback(None)

    explained = [sql for sql in statements if sql.split()[0] in ("SELECT", "UPDATE")]
    assert len(explained) > 30
    for sql in dict.fromkeys(explained):
        plan = [row["detail"] for row in store.connection.execute(f"EXPLAIN QUERY PLAN {sql}")]
        # The index `operations_open` holds unfinished ones only.
        small = (
            *("SCAN state_counts", "SCAN meta", "SCAN json_each", "SCAN (subquery", "SCAN line"),
            "SCAN CONSTANT ROW",
            "SCAN operations USING INDEX operations_open",
        )
        scans = [step for step in plan if step.startswith("SCAN") and not step.startswith(small)]
        assert not scans, (sql, plan)
        # The events of a few facts may be sorted; they are few.
        sorts = [step for step in plan if "TEMP B-TREE" in step]
        assert not sorts or "json_each" in sql, (sql, plan)
