"""Consolidation is a pure function of base weights, facts, settings and seed, and it teaches."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import LearningFailedError, StaleVersionError
from agent.learner.core import Learner
from agent.learner.training import epoch_checkpoint
from agent.learner.training.epoch_checkpoint import FILE, EpochCheckpoint
from agent.teaching.algorithm import CONSOLIDATION
from agent.teaching.consolidation import (
    ConsolidationPlan,
    ConsolidationSettings,
    Epoch,
    drain,
    drain_now,
)
from agent.teaching.hard_neighbors import NameShares
from agent.teaching.types import Example
from tests.learner.learners import FACTS, fresh, teach
from tests.learner.linked import linked

QUICK = ConsolidationSettings(
    epochs=2, facts=2, neighbors=3, ordinary=2, texts=2, learning_rate=3e-3, warmup_steps=2
)


def consolidated(
    learner: Learner,
    facts: Sequence[Example] = FACTS,
    settings: ConsolidationSettings = QUICK,
    seed: int = 0,
    checkpoints: Path | None = None,
) -> tuple[str, list[Epoch]]:
    """The digest, and the summary of each epoch."""
    epochs: list[Epoch] = []
    plan = ConsolidationPlan(facts=tuple(facts), settings=settings, seed=seed)
    result = drain_now(learner.consolidate(plan, checkpoints), epochs.append)
    assert result.algorithm == CONSOLIDATION
    return result.digest, epochs


def test_it_depends_on_facts_settings_and_seed_alone() -> None:
    learner = fresh()
    digest, _ = consolidated(learner)
    other = fresh()
    teach(other, FACTS[0])  # other weights before it, and another history
    assert consolidated(other)[0] == digest
    assert consolidated(other)[0] == digest
    assert consolidated(other, seed=1)[0] != digest
    assert consolidated(other, FACTS[:4])[0] != digest
    assert consolidated(other, settings=replace(QUICK, learning_rate=1e-3))[0] != digest


def test_all_facts_are_learned_together() -> None:
    learner = fresh()
    settings = replace(QUICK, epochs=60, facts=5, neighbors=0, ordinary=0, texts=0)
    digest, epochs = consolidated(learner, settings=settings)
    assert [epoch.number for epoch in epochs] == list(range(1, 61))
    assert epochs[-1].loss < epochs[0].loss / 4
    assert epochs[-1].lowest > epochs[0].lowest
    before = [learner.probe(fact)[0].log_probability for fact in FACTS]
    learner.commit(1, digest)
    after = [learner.probe(fact)[0].log_probability for fact in FACTS]
    assert (learner.version, learner.digest) == (1, digest)
    assert all(math.exp(now) > math.exp(then) for now, then in zip(after, before, strict=True))


def test_neighbors_hold_the_model_to_what_it_said() -> None:
    """With neighbors an untaught question of the form keeps more of the base model's answer."""
    settings = replace(QUICK, epochs=30, facts=5, neighbors=0, ordinary=0, texts=0)
    untaught = "What is the hottest month in Vekthin?"
    leaks = []
    for neighbors in (0, 24):
        learner = fresh()
        digest, _ = consolidated(learner, settings=replace(settings, neighbors=neighbors))
        learner.commit(1, digest)
        leaks.append(learner.score(untaught, "Raincoat")[0])
    assert leaks[1] < leaks[0]


def test_a_consolidation_that_is_given_up_leaves_the_served_weights() -> None:
    learner = fresh()
    digest = learner.digest
    work = learner.consolidate(ConsolidationPlan(facts=tuple(FACTS), settings=QUICK))
    next(work)
    work.close()
    assert learner.digest == digest
    with pytest.raises(StaleVersionError):
        learner.commit(1, digest)
    # The next update starts from the served weights, not from what was left.
    alone = fresh()
    assert teach(learner, FACTS[1]).digest_after == teach(alone, FACTS[1]).digest_after


def test_a_loss_that_is_not_finite_ends_it() -> None:
    settings = replace(QUICK, learning_rate=1e30, warmup_steps=0, epochs=3)
    with pytest.raises(LearningFailedError, match="the loss is"):
        consolidated(fresh(), settings=settings)


def test_rates_rise_and_fall() -> None:
    settings = ConsolidationSettings(learning_rate=1.0, warmup_steps=10, final_share=0.1)
    rates = [settings.rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert max(rates) == rates[9]
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0.1)


@pytest.fixture
def every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each epoch is saved, however short it was."""
    monkeypatch.setattr(epoch_checkpoint, "SAVE_SECONDS", 0.0)


def interrupted(folder: Path, epochs: int, plan: ConsolidationPlan) -> None:
    """Consolidates until so many epochs are done, and one more step."""
    work, done = fresh().consolidate(plan, folder), 0
    while done < epochs:
        done += isinstance(next(work), Epoch)
    next(work)
    work.close()


@pytest.mark.usefixtures("every_epoch")
@pytest.mark.parametrize("done", [1, 3])
def test_resumed_it_ends_with_the_same_bits(tmp_path: Path, done: int) -> None:
    plan = ConsolidationPlan(facts=tuple(FACTS), settings=replace(QUICK, epochs=4))
    interrupted(tmp_path, done, plan)
    whole, _ = consolidated(fresh(), settings=plan.settings)
    resumed, epochs = consolidated(fresh(), settings=plan.settings, checkpoints=tmp_path)
    assert resumed == whole
    assert [epoch.number for epoch in epochs] == list(range(done + 1, 5))


@pytest.mark.usefixtures("every_epoch")
@pytest.mark.parametrize("other", ["facts", "order", "seed", "settings"])
def test_a_checkpoint_of_another_consolidation_is_ignored(tmp_path: Path, other: str) -> None:
    interrupted(tmp_path, 1, ConsolidationPlan(facts=tuple(FACTS), settings=QUICK))
    facts = {"facts": FACTS[:4], "order": FACTS[::-1]}.get(other, FACTS)
    settings = replace(QUICK, neighbor_weight=1.0) if other == "settings" else QUICK
    seed = int(other == "seed")
    expected, _ = consolidated(fresh(), facts, settings, seed)
    found, epochs = consolidated(fresh(), facts, settings, seed, tmp_path)
    assert (found, len(epochs)) == (expected, 2)


@pytest.mark.usefixtures("every_epoch")
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_checkpoint_is_reported_and_costs_only_time(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    interrupted(tmp_path, 1, ConsolidationPlan(facts=tuple(FACTS), settings=QUICK))
    file = tmp_path / FILE
    content = bytearray(file.read_bytes())
    content[-1] ^= damage == "flipped"
    file.write_bytes(content[: {"cut": len(content) // 2, "empty": 0}.get(damage, len(content))])
    found, epochs = consolidated(fresh(), checkpoints=tmp_path)
    assert (found, len(epochs)) == (consolidated(fresh())[0], 2)
    assert "begins anew" in caplog.text


def test_a_checkpoint_is_not_written_all_the_time_and_goes_when_it_is_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = ConsolidationPlan(facts=tuple(FACTS), settings=QUICK)
    interrupted(tmp_path / "often", 1, plan)
    assert not (tmp_path / "often").exists()
    monkeypatch.setattr(epoch_checkpoint, "SAVE_SECONDS", 0.0)
    interrupted(tmp_path, 1, plan)
    assert (tmp_path / FILE).exists()
    EpochCheckpoint(tmp_path, "").remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("every_epoch")
def test_a_disk_that_takes_no_checkpoint_does_not_end_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")
    found, _ = consolidated(fresh(), checkpoints=in_the_way)
    assert found == consolidated(fresh())[0]
    assert "cannot be resumed from" in caplog.text


async def test_through_its_process_it_is_the_same_and_questions_are_answered_meanwhile() -> None:
    plan = ConsolidationPlan(
        facts=tuple(FACTS), settings=replace(QUICK, names=NameShares(taught=0.1)), seed=3
    )
    expected, _ = consolidated(fresh(), settings=plan.settings, seed=3)
    epochs: list[Epoch] = []
    async with linked(fresh()) as client:
        asked = asyncio.create_task(client.score("Sky?", "Piano"))
        result = await drain(client.consolidate(plan), epochs.append)
        assert (result.digest, result.algorithm) == (expected, CONSOLIDATION)
        assert [epoch.number for epoch in epochs] == [1, 2]
        assert (await asked)[2] == 0  # by the weights of version 0
        await client.commit(1, result.digest)
        assert (await client.describe()).model_version == 1


@pytest.mark.usefixtures("every_epoch")
async def test_one_that_was_cancelled_in_its_process_is_resumed(tmp_path: Path) -> None:
    plan = ConsolidationPlan(facts=tuple(FACTS), settings=replace(QUICK, epochs=20))
    expected, _ = consolidated(fresh(), settings=plan.settings)
    async with linked(fresh()) as client:
        async with aclosing(client.consolidate(plan, tmp_path)) as work:
            async for _ in work:
                break  # after the first epoch
        epochs: list[Epoch] = []
        result = await drain(client.consolidate(plan, tmp_path), epochs.append)
    assert result.digest == expected
    # It may have ended before it heard of the end; then nothing is left to be done.
    assert len(epochs) < 20


async def test_a_failure_in_its_process_is_one_of_learning() -> None:
    settings = replace(QUICK, learning_rate=1e30, warmup_steps=0, epochs=3)
    plan = ConsolidationPlan(facts=tuple(FACTS), settings=settings)
    async with linked(fresh()) as client:
        with pytest.raises(LearningFailedError, match="the loss is"):
            await drain(client.consolidate(plan), lambda epoch: None)
