"""What counts as applied twice: a second row, unless the served weights had lost the first."""

from __future__ import annotations

from pathlib import Path

import pytest

from memory_store import fresh_start, head_switch, undo
from memory_store.store import MemoryStore
from memory_store.vocabulary import NewFact
from tests.faults.findings import ALL, Findings, check_memory
from tests.faults.running import living
from tests.store.builders import learning, new_update, record_learned

FACTS = 4
ERASED = "fact-1"


def teach(store: MemoryStore) -> None:
    for number in range(FACTS):
        fact_id = f"fact-{number}"
        store.teach(NewFact(question=f"{number}?", answer=f"Answer {number}", fact_id=fact_id))


def lose_state(store: MemoryStore, fact_id: str) -> None:
    """The row of a fact is kept, but the fact is queued: no commit and no crash may do this."""
    store.connection.execute("UPDATE facts SET state = 'queued' WHERE id = ?", [fact_id])


def found_in(store: MemoryStore) -> Findings:
    findings = Findings(kind="none", seed=0)
    check_memory(store, [f"fact-{number}" for number in range(FACTS)], findings, "here")
    assert (findings.lost, findings.diverged) == (0, 0), findings
    return findings


def digest(store: MemoryStore, version: int) -> str:
    return store.update(version).digest_after if version else "base"


def learn_next(store: MemoryStore) -> int:
    """A row for the oldest queued fact; its version."""
    fact = store.claim()
    assert fact is not None
    version = store.model_version()
    before = digest(store, version)
    update = new_update(
        fact.id, version, steps=(), digest_before=before, digest_after=f"{before} {fact.id}"
    )
    return record_learned(store, update, learning()).model_version


def go_back(store: MemoryStore, version: int) -> None:
    """A start that reaches only an earlier version."""
    before, after = digest(store, store.model_version()), digest(store, version)
    end = new_update("", version, steps=(), digest_before=before, digest_after=after)
    fresh_start.start_over(store, end, "it cannot be replayed")
    while head_switch.go_on(store):
        pass


@pytest.fixture
def store(tmp_path: Path):
    with MemoryStore.open(tmp_path / "memory.db") as store:
        teach(store)
        for _ in range(FACTS):
            learn_next(store)
        yield store


def test_a_fact_with_two_rows_on_the_line_is_applied_twice(store: MemoryStore) -> None:
    assert found_in(store).applied_twice == 0
    lose_state(store, "fact-2")
    learn_next(store)
    found = found_in(store)
    assert found.applied_twice == 1
    assert found.remarks == ["here: versions [5] apply a fact again"]


def test_what_a_start_that_went_back_learns_again_is_applied_once(store: MemoryStore) -> None:
    go_back(store, 2)
    assert [learn_next(store), learn_next(store)] == [6, 7]
    assert found_in(store).applied_twice == 0
    lose_state(store, "fact-2")
    learn_next(store)
    assert found_in(store).applied_twice == 1


def test_a_fact_that_the_earlier_version_holds_is_applied_twice(store: MemoryStore) -> None:
    go_back(store, 2)
    lose_state(store, "fact-0")
    learn_next(store)
    assert found_in(store).applied_twice == 1


async def test_an_erase_that_is_killed_before_its_branch_applies_nothing_twice(
    tmp_path: Path,
) -> None:
    """The next start cannot replay the head, goes back, and learns what followed again."""
    async with living(tmp_path, every_updates=ALL) as life:
        await life.store.write(teach)
        await life.settle()
    with MemoryStore.open(tmp_path / "memory.db") as store:  # all that the killed server did
        undo.request_forget(store, ERASED, erase=True)
    async with living(tmp_path, every_updates=ALL) as life:
        await life.settle()
    with MemoryStore.open(tmp_path / "memory.db") as store:
        rows = store.connection.execute("SELECT fact_id FROM updates WHERE kind = 'teach'")
        taught = [row["fact_id"] for row in rows]
        assert len(taught) > len(set(taught))
        assert found_in(store).applied_twice == 0
        for fact_id in taught:
            if fact_id != ERASED:
                lose_state(store, fact_id)
    async with living(tmp_path, every_updates=ALL) as life:
        await life.settle()
    with MemoryStore.open(tmp_path / "memory.db") as store:
        assert found_in(store).applied_twice > 0
