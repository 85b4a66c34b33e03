"""Consolidation is a pure function of base weights, facts, settings and seed, and it teaches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from agent.errors import LearningFailedError, StaleVersionError
from agent.learner.core import Learner
from agent.learner.training.consolidation import ConsolidationSettings, Epoch
from agent.teaching.types import Example
from tests.learner.learners import FACTS, fresh, teach

QUICK = ConsolidationSettings(
    epochs=2, facts=2, neighbors=3, ordinary=2, texts=2, learning_rate=3e-3, warmup_steps=2
)


def consolidated(
    learner: Learner,
    facts: Sequence[Example] = FACTS,
    settings: ConsolidationSettings = QUICK,
    seed: int = 0,
) -> tuple[str, list[Epoch]]:
    """The digest, and what each epoch came to."""
    epochs: list[Epoch] = []
    work = learner.consolidate(facts, settings, seed)
    while True:
        try:
            progress = next(work)
        except StopIteration as done:
            return done.value, epochs
        if progress is not None:
            epochs.append(progress)


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
    work = learner.consolidate(FACTS, QUICK, 0)
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
