"""H1: a memory whose newer versions cannot be replayed starts, says so, and loses nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import UnreachableError
from agent.server.loop.reachability import Reach, nearest_reachable
from agent.snapshots import WEIGHTS, folder_of
from agent.teaching.algorithm import ALGORITHM, BOUNDED
from memory_store.store import MemoryStore
from memory_store.vocabulary import EventKind, FactState, LedgerKind, NewFact
from tests.loop.conftest import World

QUESTIONS = ("Sky?", "Gem?", "Pie?", "Sea?")


@pytest.fixture
async def taught(world: World) -> World:
    """Four facts, learned by an older release; a snapshot of version 2 only."""
    for question in QUESTIONS:
        fact_id = await world.teach(question, fact_id=question[:3].lower())
        async with world.running() as loop:
            await world.until_state(fact_id, FactState.LEARNED)
            if question == "Gem?":
                assert loop.learner is not None
                await loop.learner.snapshot(world.settings.snapshots)
    return world


async def reach(
    world: World, wanted: int, algorithm: str = "fake/2", *, verify: bool = False
) -> Reach:
    return await nearest_reachable(
        world.store, world.settings.snapshots, wanted, algorithm, verify=verify
    )


async def states(world: World) -> dict[str, str]:
    facts = await world.store.read(MemoryStore.facts)
    return {fact.id: fact.state.value for fact in facts}


@pytest.mark.parametrize(
    ("wanted", "nearest", "snapshot"), [(4, 2, 2), (3, 2, 2), (2, 2, 2), (1, 0, 0), (0, 0, 0)]
)
async def test_the_nearest_is_a_snapshot_on_the_line_or_the_base_model(
    taught: World, wanted: int, nearest: int, snapshot: int
) -> None:
    found = await reach(taught, wanted)
    assert (found.version, found.snapshot, list(found.rows)) == (nearest, snapshot, [])
    assert (found.obstacle is None) == (wanted == nearest)
    # And by the algorithm that made them, everything is.
    same = await reach(taught, wanted, "fake/1")
    assert (same.version, same.obstacle) == (wanted, None)
    assert list(same.rows) == list(range(snapshot + 1, wanted + 1))


async def test_a_variant_of_the_algorithm_is_replayed_by_the_same_release(world: World) -> None:
    """M12: lessons without the rows that were too long are such a variant."""
    world.machine.algorithm = f"fake/1{BOUNDED.removeprefix(ALGORITHM)}"
    fact_id = await world.teach("Sky?")
    async with world.running():
        await world.until_state(fact_id, FactState.LEARNED)
    found = await reach(world, 1, "fake/1")
    assert (found.version, found.obstacle) == (1, None)


async def test_rows_of_the_release_itself_are_replayed_up_to_those_that_are_not(
    taught: World,
) -> None:
    taught.machine.algorithm = "fake/2"
    taught.settings = replace(taught.settings, accept_drift=True)
    fact_id = await taught.teach("Ore?")
    async with taught.running():
        await taught.until_state(fact_id, FactState.LEARNED)
    head = await taught.store.read(MemoryStore.model_version)
    found = await reach(taught, head)
    assert (found.version, found.snapshot, found.obstacle) == (head, 2, None)
    # The older one again: it reaches the row that was made without steps, and no further.
    older = await reach(taught, head, "fake/1")
    assert (older.version, older.rows) == (5, [5])


async def test_a_damaged_snapshot_is_passed_over(taught: World) -> None:
    weights = folder_of(taught.settings.snapshots, 2) / WEIGHTS
    weights.write_bytes(bytes(len(weights.read_bytes())))
    assert (await reach(taught, 4)).version == 2  # it still looks like one
    assert (await reach(taught, 4, verify=True)).version == 0


async def test_a_start_is_refused_with_what_to_do(taught: World) -> None:
    taught.machine.algorithm = "fake/2"
    with pytest.raises(UnreachableError) as refused:
        await taught.loop().run()
    assert refused.value.nearest == 2
    for said in ("fake/1", "fake/2", "--accept-drift", "snapshot", "release that made it"):
        assert said in str(refused.value)
    assert set((await states(taught)).values()) == {"learned"}
    assert len(await taught.ledger()) == 4


async def test_accepted_it_serves_the_nearest_and_learns_again_what_followed(
    taught: World,
) -> None:
    taught.machine.algorithm = "fake/2"
    taught.settings = replace(taught.settings, accept_drift=True)
    taught.machine.may_learn.clear()
    new = await taught.teach("Ore?", fact_id="ore")  # accepted while it waits
    async with taught.running() as loop:
        await taught.until_event("learning", times=5)
        # Asked meanwhile: version 2's weights, under a version of their own.
        assert (await loop.current()) is loop.learner
        served = taught.machine.learners[-1]
        assert (served.served, served.version) == (["sky", "gem"], 5)
        assert await states(taught) == {
            "sky": "learned",
            "gem": "learned",
            "pie": "learning",
            "sea": "queued",
            "ore": "queued",
        }
        taught.machine.may_learn.set()
        await taught.until_state(new, FactState.LEARNED)
    rows = (await taught.ledger())[4:]
    assert [(row.kind, row.parent_version, row.fact_id, row.algorithm) for row in rows] == [
        (LedgerKind.ROLLBACK, 2, "", "none"),
        (LedgerKind.TEACH, 5, "pie", "fake/2"),
        (LedgerKind.TEACH, 6, "sea", "fake/2"),
        (LedgerKind.TEACH, 7, "ore", "fake/2"),
    ]
    [event] = [e for e in await taught.events() if e.kind is EventKind.ROLLED_BACK]
    assert event.message == (
        "to version 2, since update 3 was made by fake/1, and this release replays fake/2 only;"
        " 2 facts are learned again"
    )
    # And from then on like any other memory.
    taught.settings = replace(taught.settings, accept_drift=False)
    async with taught.running():
        await taught.until_event("learner_ready", times=6)
        assert taught.machine.learners[-1].served == ["sky", "gem", "pie", "sea", "ore"]


async def test_what_was_superseded_only_later_counts_again(taught: World) -> None:
    newer = await taught.teach("Sky?", fact_id="blue")  # the same: nothing new
    assert newer == "sky"
    await taught.store.write(lambda store: store.teach(another_answer("Sky?", "other", "newer")))
    async with taught.running():
        await taught.until_state("newer", FactState.LEARNED)
    assert (await taught.fact("sky")).superseded_by == "newer"
    taught.machine.algorithm = "fake/2"
    taught.settings = replace(taught.settings, accept_drift=True)
    taught.machine.may_learn.clear()
    async with taught.running():
        await taught.until_event("learning", times=6)
        assert (await taught.fact("sky")).state is FactState.LEARNED
        taught.machine.may_learn.set()
        await taught.until_state("newer", FactState.LEARNED)
    assert (await taught.fact("sky")).superseded_by == "newer"


def another_answer(question: str, answer: str, fact_id: str) -> NewFact:
    return NewFact(question=question, answer=answer, fact_id=fact_id)


async def test_a_memory_without_any_snapshot_begins_at_the_base_model(
    taught: World, tmp_path: Path
) -> None:
    taught.machine.algorithm = "fake/2"
    taught.settings = replace(
        taught.settings, accept_drift=True, snapshots=tmp_path / "no snapshots"
    )
    async with taught.running():
        await taught.until_event("rolled_back")
        await taught.until_state("sea", FactState.LEARNED)
    assert set((await states(taught)).values()) == {"learned"}
    assert taught.machine.learners[-1].served == ["sky", "gem", "pie", "sea"]
    assert (await taught.ledger())[4].parent_version == 0
