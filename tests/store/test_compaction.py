"""Compacting (M15): space is given back, and what was erased leaves no trace in the file."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path

import pysqlite3
import pytest

from memory_store.compaction import compact_file, give_back, space
from memory_store.errors import StoreUnusableError
from memory_store.history_thinning import Thinning
from memory_store.probes import of_fact as probes_of
from memory_store.store import MemoryStore
from memory_store.vocabulary import Fact
from memory_store.writer import StoreThreads
from tests.store import integrity
from tests.store.builders import erase_everywhere, new_fact, new_probe, teach_claimed, teach_learned
from tests.store.example_migrations import next_release

MANY = 3000


def fill(store: MemoryStore) -> Fact:
    fact: Fact = teach_learned(store)
    wordy = [
        new_probe(fact.id, correct=False, answer=f"wrong {n} ".ljust(200)) for n in range(MANY)
    ]
    store.record_probes(wordy, 1)
    return fact


def contents(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))


def thin(store: MemoryStore) -> None:
    thinning = Thinning(1000, fully=True)
    while thinning.piece(store) is not None:
        pass


def rewritten_by_an_older_release(path: Path) -> None:
    """Its files did not keep track of their pages."""
    connection = pysqlite3.connect(path, isolation_level=None)
    for statement in ("PRAGMA auto_vacuum = NONE", "VACUUM"):
        connection.execute(statement)
    connection.close()


def test_free_pages_are_cut_off_some_at_a_time(path: Path, store: MemoryStore) -> None:
    fact = fill(store)
    before = space(store)
    thin(store)
    assert space(store).total == before.total
    assert space(store).free > before.total / 2
    pieces = 0
    while give_back(store):
        pieces += 1
    assert pieces > 1
    assert space(store).total < before.total / 4
    assert space(store).free == 0
    store.connection.checkpoint()
    assert path.stat().st_size == space(store).total
    assert integrity.problems(store.connection) == []
    assert len(probes_of(store.connection, fact.id)) == 2


async def test_space_is_given_back_while_a_server_writes(path: Path) -> None:
    """Inside the writer's transactions, where some pragmas do nothing."""
    threads = await StoreThreads.open(path)
    try:
        await threads.write(fill)
        await threads.write(thin)
        before = await threads.read(space)
        pieces = itertools.count()
        while await threads.write(give_back):
            await threads.write(partial(teach_learned, question=f"{next(pieces)}?"))
        assert (await threads.read(space)).total < before.total / 4
    finally:
        await threads.close()


def test_a_file_of_an_older_release_is_only_rewritten_while_nobody_uses_it(path: Path) -> None:
    with MemoryStore.open(path) as store:
        fact = fill(store)
    rewritten_by_an_older_release(path)
    with MemoryStore.open(path) as store:
        thin(store)
        assert not give_back(store)
        free = space(store).free
        assert free > 0
    done = compact_file(path, 1000)
    assert done.bytes_after < done.bytes_before - free + 3 * 4096  # pages that keep track
    assert done.bytes_after == path.stat().st_size
    assert done.reclaimable_bytes == 0
    with MemoryStore.open(path) as store:
        assert integrity.problems(store.connection) == []
        assert len(probes_of(store.connection, fact.id)) == 2
        fill_again = new_probe(fact.id, correct=False, answer="x" * 9000)
        store.record_probes([fill_again] * 20, 1)
        thin(store)
        assert give_back(store)  # from now on it keeps track


def test_compacting_tells_what_it_removed(path: Path) -> None:
    with MemoryStore.open(path) as store:
        fill(store)
        store.connection.checkpoint()
        size = space(store).total
    done = compact_file(path, 1)
    assert done.bytes_before == size
    assert (done.removed_probes, done.removed_events) == (MANY - 2, 2)
    assert compact_file(path, 1).removed_probes == 0


def test_compacting_makes_no_file_and_changes_no_other_release(path: Path) -> None:
    with pytest.raises(StoreUnusableError):
        compact_file(path, 1000)
    assert not path.exists()
    MemoryStore.open(path).close()
    with next_release(), pytest.raises(StoreUnusableError, match="Start the server once"):
        compact_file(path, 1000)


@pytest.mark.parametrize("offline", [True, False])
def test_an_erased_text_is_not_in_the_file_before_or_after(path: Path, *, offline: bool) -> None:
    secret = b"zanzibar"
    with MemoryStore.open(path) as store:
        fact = teach_claimed(store, "What is it?", "Zanzibar")
        store.release(fact.id)
        other = fill_about(store, fact)
        store.connection.checkpoint()
        assert secret in contents(path).lower()
        erase_everywhere(store, store.fact(fact.id))
        store.connection.checkpoint()
        assert secret not in contents(path).lower()
        thin(store)
        while give_back(store):
            pass
        store.connection.checkpoint()
        assert secret not in contents(path).lower()
        assert store.fact(other).question
    if offline:
        compact_file(path, 1)
        assert secret not in contents(path).lower()


def fill_about(store: MemoryStore, fact: Fact) -> str:
    """Probes that repeat the fact's text, removed before the text is erased."""
    store.record_probes([new_probe(fact.id, answer="Zanzibar", correct=False)] * 500, 0)
    thin(store)
    return store.teach(new_fact("And what else?", "Curtain")).fact.id
