"""`agent compact` (M15): by the server, or on the folder of a memory that no server uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.server.data.folder import held
from memory_store import erasure
from memory_store.store import MemoryStore
from tests.cli.conftest import Agent, InThread
from tests.store.builders import new_probe, teach_learned

FIELDS = {
    *("bytes_before", "bytes_after", "removed_probes", "removed_events", "reclaimable_bytes"),
    "postponed",
}


def fill(store: MemoryStore) -> None:
    fact = teach_learned(store)
    store.record_probes([new_probe(fact.id, correct=False, answer="x" * 500)] * 500, 1)


def test_the_server_compacts_its_memory(agent: Agent, server: InThread) -> None:
    server.write(fill)
    ran = agent("compact", "--json")
    assert ran.code == 0
    assert set(ran.json) == FIELDS
    assert (ran.json["removed_probes"], ran.json["postponed"]) == (498, "")
    assert ran.json["bytes_after"] < ran.json["bytes_before"]
    assert "removed 0 probes and 0 events" in agent("compact").err


def test_a_memory_without_a_server_is_rewritten(agent: Agent, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    with MemoryStore.open(data / "memory.db") as store:
        fill(store)
    with held(data):
        ran = agent("compact", "--data", str(data))
        assert ran.code == 1
        assert "in use" in ran.err
    ran = agent("compact", "--data", str(data), "--json")
    assert ran.code == 0
    assert ran.json["removed_probes"] == 498
    assert ran.json["bytes_after"] == (data / "memory.db").stat().st_size


@pytest.mark.parametrize("offline", [False, True])
def test_it_says_that_it_removes_nothing_while_an_erased_text_is_searched_for(
    agent: Agent, server: InThread, tmp_path: Path, offline: bool
) -> None:
    """Low: it removed nothing, and did not say so."""

    def fill_and_erase(store: MemoryStore) -> None:
        fill(store)
        erasure.erase(store, teach_learned(store, "Sky?", "Piano"))

    data = tmp_path / "offline"
    where = ["--data", str(data)] if offline else []
    if offline:
        data.mkdir(mode=0o700)
        with MemoryStore.open(data / "memory.db") as store:
            fill_and_erase(store)
    else:
        server.write(fill_and_erase)
    ran = agent("compact", *where)
    assert "removed 0 probes" in ran.err
    assert "the text of 1 erased fact everywhere" in ran.err
    assert "1 erased fact" in agent("compact", *where, "--json").json["postponed"]


def test_a_folder_without_a_memory_is_left_alone(agent: Agent, tmp_path: Path) -> None:
    ran = agent("compact", "--data", str(tmp_path / "nothing"))
    assert ran.code == 1
    assert "holds no memory" in ran.err
    assert not (tmp_path / "nothing").exists()
