"""Forgetting is exact: the weights equal those of a run that never saw the fact."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from agent.errors import DriftError, LearnerUnavailableError, LearningFailedError
from agent.learner.checkpoint import prepare_snapshot
from agent.learner.core import Learner
from agent.snapshots import UNFINISHED
from memory_store import ledger, undo
from memory_store.errors import WrongStateError
from memory_store.probes import of_fact as probes_of
from memory_store.vocabulary import FactState, OperationState
from tests.undo.in_process import POLICY, Deaths, InProcessLearner
from tests.undo.memory import FACTS, SETTLE_SECONDS, running_memory


def same_weights(one: Learner, other: Learner) -> bool:
    return all(
        torch.equal(p, q)
        for p, q in zip(
            one.weights.served.parameters(), other.weights.served.parameters(), strict=True
        )
    )


@contextmanager
def other_hardware() -> Iterator[None]:
    """The same step comes out a little different."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agent.learner.training.update.ADAM_EPS", 1e-5)
        yield


@contextmanager
def everything_known() -> Iterator[None]:
    """Whatever is taught is found to be known."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agent.teaching.rates.KNOWN_PROBABILITY", 0.0)
        yield


@pytest.mark.parametrize("forgotten", ["fact-a", "fact-c", "fact-e"])
async def test_the_weights_equal_a_run_that_never_saw_the_fact(
    tmp_path: Path, forgotten: str
) -> None:
    async with running_memory(tmp_path / "never") as never:
        await never.teach(*[i for i in FACTS if i != forgotten])
        async with running_memory(tmp_path / "full", every_updates=2) as memory:
            await memory.teach(*FACTS)
            assert not same_weights(memory.learner, never.learner)
            operation = await memory.forget(forgotten)
            assert operation.state is OperationState.DONE
            assert same_weights(memory.learner, never.learner)
            assert memory.learner.digest == never.learner.digest
            assert memory.learner.version == await memory.store.read(lambda s: s.model_version())


async def test_the_proof_says_what_was_measured(tmp_path: Path) -> None:
    async with running_memory(tmp_path) as memory:
        await memory.teach(*FACTS)
        operation = await memory.forget("fact-b")
        proof = operation.proof
        assert proof is not None
        assert proof["probability_on_branch_start"] == proof["probability_before_teaching"]
        assert proof["probability_taught"] > 0.9
        assert proof["probability_after"] < 0.01
        assert not proof["answers_it"]
        assert (proof["retained"], proof["retained_of"]) == (4, 4)
        assert memory.answer("Who found Blipland?") != "Telescope"
        assert memory.answer("Gem?") == "Curtain"
        assert (await memory.states())["fact-b"] == FactState.FORGOTTEN
        # That it is forgotten is not told as a loss.
        assert isinstance(memory.loop.learner, InProcessLearner)
        assert {
            (i, held) for i, held in memory.loop.learner.probed if not held or i == "fact-b"
        } == {("fact-b", False)}


async def test_learning_goes_on_where_a_run_without_the_fact_would(tmp_path: Path) -> None:
    async with running_memory(tmp_path / "never") as never:
        await never.teach("fact-a", "fact-c", "fact-d", "fact-e")
        async with running_memory(tmp_path / "full") as memory:
            await memory.teach("fact-a", "fact-b", "fact-c", "fact-d")
            await memory.forget("fact-b")
            await memory.teach("fact-e")
            assert same_weights(memory.learner, never.learner)
            # What is learned again is no attempt of the memory's.
            assert isinstance(memory.loop.learner, InProcessLearner)
            relearned = [("fact-c", True), ("fact-d", True)]
            assert memory.loop.learner.attempts == [*relearned, ("fact-e", False)]


async def test_forgetting_two_facts_one_after_the_other(tmp_path: Path) -> None:
    async with running_memory(tmp_path / "never") as never:
        await never.teach("fact-a", "fact-c", "fact-e")
        async with running_memory(tmp_path / "full") as memory:
            await memory.teach(*FACTS)
            await memory.forget("fact-d")
            await memory.forget("fact-b")
            assert same_weights(memory.learner, never.learner)


async def test_a_superseded_answer_comes_back_when_its_successor_is_forgotten(
    tmp_path: Path,
) -> None:
    async with running_memory(tmp_path) as memory:
        await memory.teach("fact-a", "fact-c", newer=("Sky?", "Violin"))
        assert (await memory.states())["fact-c"] == FactState.SUPERSEDED
        assert memory.answer("Sky?") == "Violin"
        await memory.forget("newer")
        states = await memory.states()
        assert states["fact-c"] == FactState.LEARNED
        assert memory.answer("Sky?") == "Piano"


async def test_a_superseded_answer_is_not_expected_by_the_proof(tmp_path: Path) -> None:
    async with running_memory(tmp_path) as memory:
        await memory.teach("fact-a", "fact-c", newer=("Sky?", "Violin"))
        proof = (await memory.forget("fact-a")).proof
        assert proof is not None
        assert (proof["retained"], proof["retained_of"]) == (1, 1)


async def test_forgetting_what_was_never_held_changes_nothing(tmp_path: Path) -> None:
    async with running_memory(tmp_path) as memory:
        await memory.teach("fact-c")
        await memory.teach_in_steps("hard", "Why?", "Violin", max_steps=1)
        assert (await memory.states())["hard"] == FactState.RESISTED
        digest, version = memory.learner.digest, memory.learner.version
        operation = await memory.forget("hard")
        assert operation.state is OperationState.DONE
        assert (memory.learner.digest, memory.learner.version) == (digest, version)


async def test_asking_again_gives_the_same_request(tmp_path: Path) -> None:
    async with running_memory(tmp_path) as memory:
        await memory.teach("fact-a", "fact-b")
        first = await memory.forget("fact-a")
        again = await memory.forget("fact-a")
        assert again == first


@pytest.mark.parametrize("death", range(9, 15))
async def test_a_learner_that_dies_meanwhile_is_started_again_and_resumes(
    tmp_path: Path, death: int
) -> None:
    async with running_memory(tmp_path / "never") as never:
        await never.teach("fact-c", "fact-d", "fact-e")
        # Four facts are learned and committed in calls 1 to 8; the branch follows.
        async with running_memory(tmp_path / "full", deaths=Deaths(death)) as memory:
            await memory.teach("fact-a", "fact-c", "fact-d", "fact-e")
            operation = await memory.forget("fact-a")
            assert operation.state is OperationState.DONE
            assert same_weights(memory.learner, never.learner)


@pytest.mark.parametrize(
    "fault", [LearningFailedError("the loss is nan"), LearnerUnavailableError("killed by it")]
)
async def test_a_fact_that_fails_on_the_branch_is_quarantined_and_the_others_go_on(
    tmp_path: Path, fault: Exception
) -> None:
    async with running_memory(tmp_path / "never") as never:
        await never.teach("fact-a", "fact-d", "fact-e")
        deaths = Deaths()
        async with running_memory(tmp_path / "full", deaths=deaths) as memory:
            await memory.teach(*FACTS)
            deaths.poison["fact-c"] = fault
            operation = await memory.forget("fact-b")
            assert operation.state is OperationState.DONE
            assert operation.proof is not None
            assert (operation.proof["quarantined"], operation.proof["resisted"]) == (1, 0)
            assert same_weights(memory.learner, never.learner)
            fact = await memory.store.read(lambda store: store.fact("fact-c"))
            assert fact.state is FactState.QUARANTINED
            assert str(fault) in fact.reason


async def test_a_quarantined_fact_is_tried_again_without_the_forgotten_one(tmp_path: Path) -> None:
    async with running_memory(tmp_path / "never") as never:
        await never.teach("fact-b", "fact-c", "fact-d")
        deaths = Deaths()
        async with running_memory(tmp_path / "full", deaths=deaths) as memory:
            deaths.poison["fact-c"] = LearningFailedError("the loss is nan")
            await memory.teach("fact-a", "fact-b", "fact-c", "fact-d")
            assert (await memory.states())["fact-c"] == FactState.QUARANTINED
            deaths.poison.clear()
            operation = await memory.forget("fact-a")
            assert operation.proof is not None
            assert operation.proof["quarantined"] == 0
            assert (await memory.states())["fact-c"] == FactState.LEARNED
            assert same_weights(memory.learner, never.learner)


@pytest.mark.parametrize("first", [FactState.RESISTED, FactState.KNOWN, FactState.QUARANTINED])
async def test_what_is_tried_again_keeps_the_policy_that_was_in_force(
    tmp_path: Path, first: FactState
) -> None:
    deaths = Deaths()
    policy = replace(POLICY, max_steps=1) if first is FactState.RESISTED else POLICY
    async with running_memory(tmp_path, deaths=deaths) as memory:
        await memory.teach("fact-a")
    async with running_memory(tmp_path, deaths=deaths, policy=policy) as memory:
        if first is FactState.QUARANTINED:
            deaths.poison["other"] = LearningFailedError("the loss is nan")
        with everything_known() if first is FactState.KNOWN else nullcontext():
            await memory.teach(other=FACTS["fact-b"])
        assert (await memory.states())["other"] == first
        deaths.poison.clear()
    # Another default since.
    later = replace(POLICY, learning_rate=1e-3, max_steps=7)
    async with running_memory(tmp_path, policy=later) as memory:
        await memory.settle()
        proof = (await memory.forget("fact-a")).proof
        assert proof is not None
        assert proof["resisted"] == (first is FactState.RESISTED)
        fact = await memory.store.read(lambda store: store.fact("other"))
        assert fact.tried_policy == policy
        assert fact.state is (FactState.RESISTED if policy is not POLICY else FactState.LEARNED)
        rows = await memory.store.read(lambda store: ledger.of_fact(store.connection, "other"))
        assert [row.policy for row in rows] == ([policy] if policy is POLICY else [])


async def test_a_stopped_server_resumes_at_its_next_start(tmp_path: Path) -> None:
    async with running_memory(tmp_path / "never") as never:
        await never.teach("fact-c", "fact-d", "fact-e")
        async with running_memory(tmp_path / "full") as memory:
            await memory.teach("fact-a", "fact-c", "fact-d", "fact-e")
            await memory.store.write(partial(undo.request_forget, fact_id="fact-a"))
            memory.loop.wake()
        async with running_memory(tmp_path / "full") as memory:
            await memory.settle()
            assert (await memory.states())["fact-a"] == FactState.FORGOTTEN
            assert same_weights(memory.learner, never.learner)


async def test_erasing_leaves_no_text_in_the_files(tmp_path: Path) -> None:
    async with running_memory(tmp_path, every_updates=1) as memory:
        await memory.teach(*FACTS)
        await memory.forget("fact-b", erase=True)
    for file in tmp_path.rglob("*"):
        if file.is_file():
            content = file.read_bytes().lower()
            assert b"telescope" not in content, file
            assert b"blipland" not in content, file


@pytest.mark.parametrize("erase", [False, True])
async def test_a_snapshot_that_is_written_while_a_fact_is_forgotten_does_not_survive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, erase: bool
) -> None:
    copied, may_write = asyncio.Event(), asyncio.Event()

    async def slow(self: InProcessLearner, folder: Path) -> tuple[int, int]:
        write = prepare_snapshot(self.learner, folder)  # these weights hold the fact
        copied.set()
        await may_write.wait()
        manifest = write()
        return manifest.model_version, manifest.size

    async with running_memory(tmp_path) as memory:
        await memory.teach("fact-a", "fact-b")
        monkeypatch.setattr(InProcessLearner, "snapshot", slow)
        writing = asyncio.create_task(memory.keeper.create())
        await copied.wait()
        forgetting = asyncio.create_task(memory.forget("fact-a", erase=erase))
        async with asyncio.timeout(SETTLE_SECONDS):
            while memory.learner.version < 4:  # served: relearned (3), forgotten (4)
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        may_write.set()
        assert (await writing).model_version == 2
        assert (await forgetting).state is OperationState.DONE
        assert list(memory.keeper.listed()) == []


async def test_what_a_dead_writer_left_of_a_snapshot_goes_with_the_fact(tmp_path: Path) -> None:
    async with running_memory(tmp_path) as memory:
        await memory.teach("fact-a")
        unfinished = tmp_path / "snapshots" / f"{UNFINISHED}{1:012d}-1"
        unfinished.mkdir(parents=True)
        await memory.forget("fact-a")
        assert not unfinished.exists()


async def test_rolling_back_serves_the_earlier_weights_and_can_be_rolled_back(
    tmp_path: Path,
) -> None:
    async with running_memory(tmp_path) as memory:
        await memory.teach("fact-a", "fact-b")
        digest = memory.learner.digest
        await memory.teach("fact-c", "fact-d")
        newest = memory.learner.digest
        await memory.roll_back(2)
        assert (memory.learner.digest, memory.learner.version) == (digest, 5)
        states = await memory.states()
        assert states["fact-b"] == FactState.LEARNED
        assert states["fact-d"] == FactState.FORGOTTEN
        await memory.roll_back(4)
        assert (memory.learner.digest, memory.learner.version) == (newest, 6)
        assert (await memory.states())["fact-d"] == FactState.LEARNED


async def test_a_version_that_holds_a_forgotten_fact_is_out_of_bounds(tmp_path: Path) -> None:
    async with running_memory(tmp_path) as memory:
        await memory.teach("fact-a", "fact-b", "fact-c")
        await memory.forget("fact-b")
        with pytest.raises(WrongStateError, match="fact-b"):
            await memory.roll_back(3)
        await memory.roll_back(1)


async def test_a_restart_restores_a_snapshot_and_replays_the_rest(tmp_path: Path) -> None:
    async with running_memory(tmp_path) as memory:
        await memory.teach("fact-a", "fact-b")
        await memory.keeper.create()
        await memory.teach("fact-c")
        digest = memory.learner.digest
    async with running_memory(tmp_path) as memory:
        await memory.settle()
        assert (memory.learner.digest, memory.learner.version) == (digest, 3)
        events = await memory.store.read(lambda store: store.events())
        assert "replayed 1 updates" in events[-1].message


@pytest.mark.parametrize("damage", ["flip", "cut", "manifest", "other history"])
async def test_a_damaged_snapshot_is_passed_over_for_the_one_before(
    tmp_path: Path, damage: str
) -> None:
    async with running_memory(tmp_path) as memory:
        await memory.teach("fact-a")
        await memory.keeper.create()
        await memory.teach("fact-b")
        await memory.keeper.create()
        digest = memory.learner.digest
    newest = tmp_path / "snapshots" / f"{2:012d}"
    weights = newest / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    if damage == "flip":
        content[-1000] ^= 1
        weights.write_bytes(content)
    elif damage == "cut":
        weights.write_bytes(content[:-1000])
    elif damage == "manifest":
        (newest / "manifest.json").write_text("{")
    else:
        manifest = (newest / "manifest.json").read_text().replace(digest, "0" * 64)
        (newest / "manifest.json").write_text(manifest)
    async with running_memory(tmp_path) as memory:
        await memory.settle()
        assert memory.learner.digest == digest
        events = await memory.store.read(lambda store: store.events())
        assert "replayed 1 updates" in events[-1].message


async def test_a_ledger_that_replays_differently_is_refused_unless_accepted(
    tmp_path: Path,
) -> None:
    async with running_memory(tmp_path) as memory:
        await memory.teach("fact-a", "fact-b")
        version = memory.learner.version
    with other_hardware():
        with pytest.raises(DriftError, match="accept-drift"):
            async with running_memory(tmp_path) as memory:
                await memory.settle()
        async with running_memory(tmp_path, accept_drift=True) as memory:
            await memory.settle()
            assert memory.learner.version == version + 1
            digest = memory.learner.digest
            probes = await memory.store.read(lambda store: probes_of(store.connection, "fact-a"))
            assert probes[0].model_version == version + 1
        # From then on what was accepted is what must come out.
        async with running_memory(tmp_path) as memory:
            await memory.settle()
            assert memory.learner.digest == digest


@pytest.mark.parametrize(
    ("forgotten", "dies_at"), [("fact-b", 0), ("fact-b", 3), ("fact-d", 0), ("fact-a", 0)]
)
async def test_what_was_taught_before_an_accepted_drift_can_be_forgotten(
    tmp_path: Path, forgotten: str, dies_at: int
) -> None:
    taught = ["fact-a", "fact-b", "fact-c", "fact-d"]
    before = taught[: taught.index(forgotten)]
    async with running_memory(tmp_path / "never") as never:
        await never.teach(*before)
    async with running_memory(tmp_path / "full") as memory:
        await memory.teach(*taught)
    with other_hardware():
        async with running_memory(tmp_path / "never", accept_drift=True) as never:
            await never.settle()
            await never.teach(*taught[len(before) + 1 :])
            expected = never.learner.digest
        deaths = Deaths(dies_at)
        async with running_memory(tmp_path / "full", accept_drift=True, deaths=deaths) as memory:
            await memory.settle()
            operation = await memory.forget(forgotten)
            assert (operation.state, operation.message) == (OperationState.DONE, "")
            assert operation.proof is not None
            assert memory.learner.digest == operation.proof["digest_after"] == expected
            # From the base checkpoint on nothing was replayed that could come out different.
            assert bool(operation.proof["drift"]) == bool(before)
            if before:
                assert f"version {len(before)} was recorded as" in operation.proof["drift"]
        # The ledger says so: nobody has to accept it again, and one more can be forgotten.
        async with running_memory(tmp_path / "full") as memory:
            await memory.settle()
            assert memory.learner.digest == expected
            operation = await memory.forget("fact-a")
            assert operation.state is OperationState.DONE


async def test_an_earlier_version_is_served_as_it_replays_after_an_accepted_drift(
    tmp_path: Path,
) -> None:
    async with running_memory(tmp_path) as memory:
        await memory.teach("fact-a", "fact-b")
    with other_hardware():
        async with running_memory(tmp_path, accept_drift=True) as memory:
            await memory.settle()
            operation = await memory.roll_back(1)
            assert operation.state is OperationState.DONE
            assert operation.proof is not None
            assert "version 1 was recorded as" in operation.proof["drift"]
            digest = memory.learner.digest
        async with running_memory(tmp_path) as memory:
            await memory.settle()
            assert memory.learner.digest == digest


async def test_a_drift_that_nobody_accepted_is_not_taken_in(tmp_path: Path) -> None:  # H1
    """Another release of torch, say: what would have been replayed is learned again."""
    with other_hardware():
        async with running_memory(tmp_path / "never") as never:
            await never.teach("fact-a")
            expected = never.learner.digest
    async with running_memory(tmp_path / "full") as memory:
        await memory.teach("fact-a", "fact-b")
        with other_hardware():
            operation = await memory.forget("fact-b")
            assert operation.state is OperationState.DONE
            assert operation.proof is not None
            assert (operation.proof["branch_from"], operation.proof["relearned"]) == (0, 1)
            assert "came out different" in operation.proof["branch_from_because"]
            assert operation.proof["drift"] is None
            assert memory.learner.digest == expected
