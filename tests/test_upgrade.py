"""H1: what an upgrade needs is said before it is made."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from agent.doctor import storage
from agent.doctor.findings import State
from agent.server.data.upgrade import Survey, log_standing, needs, survey
from agent.snapshots import WEIGHTS, folder_of, write_snapshot
from agent.teaching.algorithm import ALGORITHM
from memory_store import meta
from memory_store.connection import Connection
from memory_store.errors import StoreUnusableError
from memory_store.store import MemoryStore
from memory_store.undo import request_forget
from tests.store.builders import learning, new_fact, new_update, record_learned
from tests.store.example_migrations import next_release

OLDER = "answer-adamw/3"
LIBRARIES = {"torch": "2.9.0+cpu", "transformers": "5.0.0", "tokenizers": "0.22.1"}
INSTALLED = {"torch": "2.9.0+cu128", "transformers": "5.0.0", "tokenizers": "0.22.1"}


def learn(store: MemoryStore, question: str, algorithm: str) -> int:
    store.teach(new_fact(question))
    fact = store.claim()
    assert fact is not None
    row = new_update(fact.id, store.model_version(), algorithm=algorithm, environment=LIBRARIES)
    return record_learned(store, row, learning()).model_version


def save(file: Path) -> None:
    file.write_text("weights")


def hold(data: Path, version: int, digest: str) -> None:
    write_snapshot(
        data / "snapshots",
        save,
        model_version=version,
        digest=digest,
        base_digest="base",
        environment={},
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three updates by this release; a snapshot of the second."""
    with MemoryStore.open(tmp_path / "memory.db") as store:
        meta.bind_model(store.connection, "tiny", "base")
        meta.bind_tokenizer(store.connection, "tokenizer", "behavior", "0.22.1")
        for number in range(3):
            learn(store, f"Question {number}?", ALGORITHM)
        digest = store.update(2).digest_after
    hold(tmp_path, 2, digest)
    return tmp_path


def found_in(data: Path) -> Survey:
    found = survey(data)
    assert found is not None
    return found


def told(found: Survey, algorithm: str = ALGORITHM) -> list[tuple[bool, bool]]:
    """Whether each need is serious, and whether there is something to do."""
    return [(n.serious, bool(n.remedy)) for n in needs(found, algorithm, INSTALLED)]


def test_updates_without_a_snapshot_are_counted_with_who_made_them(data: Path) -> None:
    found = found_in(data)
    assert (found.model, found.head, found.snapshot) == ("tiny", 3, 2)
    assert (found.rows, found.algorithms) == (1, (ALGORITHM,))
    assert found.libraries == LIBRARIES
    assert (found.lacking, found.foreign, found.operation) == ((), (), "")
    assert told(found) == [(False, True)]
    assert told(found, "answer-adamw/9") == [(True, True)]  # as the next release sees it
    (need,) = needs(found, "answer-adamw/9", INSTALLED)
    assert "--accept-drift" in need.remedy


def test_a_head_with_a_snapshot_needs_nothing(data: Path) -> None:
    with MemoryStore.open(data / "memory.db") as store:
        hold(data, 3, store.update(3).digest_after)
    found = found_in(data)
    assert (found.snapshot, found.rows) == (3, 0)
    assert told(found, "answer-adamw/9") == []
    assert "the head has a snapshot" in str(found)
    # Damaged, it does not count.
    (folder_of(data / "snapshots", 3) / WEIGHTS).write_text("WEIGHTS")
    assert found_in(data).snapshot == 2


def test_other_libraries_are_named_but_not_other_builds(data: Path) -> None:
    found = found_in(data)
    changed = {**INSTALLED, "torch": "2.10.0"}
    (_, need) = needs(found, ALGORITHM, changed)
    assert "torch 2.9.0+cpu, here 2.10.0" in need.what
    assert not need.serious


def test_it_looks_while_a_server_runs_and_changes_nothing(data: Path) -> None:
    with MemoryStore.open(data / "memory.db") as store, store.transaction():
        request_forget(store, store.facts()[0].id)
        assert found_in(data).operation == ""  # not committed yet
    before = (data / "memory.db").read_bytes()
    assert found_in(data).operation.startswith("a forget")
    assert (data / "memory.db").read_bytes() == before


def test_memories_of_older_and_newer_releases_can_be_looked_at(data: Path) -> None:
    older = data.parent / "older"
    older.mkdir()
    MemoryStore.open(older / "memory.db").close()
    with next_release() as names:
        assert found_in(older).lacking == names
        assert told(found_in(older)) == [(False, False)]

    connection = Connection(data / "memory.db")
    connection.execute(
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
        " VALUES ('continual.memory_store', '9999_later', 'now')"
    )
    found = found_in(data)
    assert found.foreign == ("9999_later",)
    assert told(found)[0] == (True, True)
    connection.execute("ALTER TABLE operations RENAME TO undertakings")
    connection.close()
    with pytest.raises(StoreUnusableError, match="the release that made it"):
        survey(data)


def test_where_there_is_no_memory_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert survey(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_says_it(data: Path) -> None:
    finding = storage.check_upgrade(data)
    assert finding.state is State.WARNING
    assert "SIGTERM" in finding.remedy
    with MemoryStore.open(data / "memory.db") as store:
        hold(data, 3, store.update(3).digest_after)
        learn(store, "By another?", OLDER)
    assert storage.check_upgrade(data).state is State.BAD
    assert storage.check_upgrade(data / "nothing here").state is State.GOOD


def test_and_so_does_the_log_of_a_start(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log_standing(data)
    assert "memory: version 3 of tiny" in caplog.text
    assert "stop the server with SIGTERM" in caplog.text
    shutil.rmtree(data / "snapshots")
    (data / "memory.db").write_text("not a database")
    log_standing(data)  # opening it says why
    assert "damaged" in caplog.text
