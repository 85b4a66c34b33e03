"""Rows of a lesson that are too long are left out, and the ledger tells (M12)."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from agent.learner.training import guards as guard
from agent.learner.training.rows import Role, Row
from agent.models import catalog
from agent.teaching.algorithm import ALGORITHM, BOUNDED
from agent.teaching.types import Example
from memory_store.vocabulary import Guards, Policy
from tests.learner.learners import FACTS, fresh, learn, replay

pytestmark = pytest.mark.usefixtures("deterministic")

CONTEXT = 512
GUARDS = Guards(neighbours=2, controls=2)
POLICY = Policy(name="fixed", learning_rate=1e-3, max_steps=1, guards=GUARDS)
# A byte is a token. Each "Oz" becomes an invented name of up to a dozen letters.
LONG = Example(fact_id="long", question=f"What {'Oz ' * 150}?", answer="Piano")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "cache_folder", lambda: tmp_path / "cache")


def row(role: Role, tokens: int) -> Row:
    return Row.whole(role, [0] * tokens)


def test_what_fits_the_context_and_the_fact_stays() -> None:
    own, asked = row(Role.FACT, 600), row(Role.ASKED, 600)
    kept = [row(Role.FACT, 512), row(Role.REHEARSED, 512), row(Role.TEXT, 512)]
    too_long = [row(role, 513) for role in (Role.FACT, Role.REHEARSED, Role.TEXT)]
    assert guard.fitting([own, asked, *kept, *too_long], CONTEXT) == [own, asked, *kept]


@pytest.mark.parametrize("role", [Role.NEIGHBOUR, Role.CONTROL])
def test_what_is_invented_stays_near_the_length_of_the_facts(role: Role) -> None:
    limit = guard.GROWTH * 30 + guard.SPARE_TOKENS
    facts = [row(Role.FACT, 20), row(Role.REHEARSED, 30)]
    assert guard.fitting([*facts, row(role, limit), row(role, limit + 1)], CONTEXT) == [
        *facts,
        row(role, limit),
    ]
    facts = [row(Role.FACT, 500)]
    assert guard.fitting([*facts, row(role, 512), row(role, 513)], CONTEXT) == [
        *facts,
        row(role, 512),
    ]


def test_no_row_of_a_long_fact_exceeds_the_context_and_the_ledger_tells(
    caplog: pytest.LogCaptureFixture,
) -> None:
    learner = fresh()
    seen: list[int] = []
    for model in (learner.workbench.working, learner.workbench.base):
        model.register_forward_pre_hook(
            lambda _, __, kwargs: seen.append(kwargs["input_ids"].shape[-1]), with_kwargs=True
        )
    with caplog.at_level(logging.WARNING):
        outcome = learn(learner, LONG, policy=POLICY)
    assert max(seen) <= CONTEXT
    assert outcome.algorithm == BOUNDED
    assert "rows of the lesson of long were too long" in caplog.text
    replay(fresh(), 1, LONG, outcome, policy=POLICY)


def test_what_was_learned_before_that_rule_is_replayed_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as before:
        before.setattr(guard, "fitting", lambda rows, max_tokens: list(rows))
        outcome = learn(fresh(), LONG, policy=POLICY)
    assert outcome.algorithm == ALGORITHM
    replay(fresh(), 1, LONG, outcome, policy=POLICY)


def test_an_ordinary_fact_is_learned_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    bounded = learn(fresh(), FACTS[0], policy=POLICY)
    monkeypatch.setattr(guard, "fitting", lambda rows, max_tokens: list(rows))
    assert learn(fresh(), FACTS[0], policy=POLICY) == bounded
    assert bounded.algorithm == ALGORITHM
