"""By which policy a fact is taught, reviewed, and learned again on a branch."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.teaching.guard_presets import FULL, LIGHT, NONE
from agent.teaching.plan import Defaults
from memory_store.vocabulary import Guards, Policy

PLAIN = Policy(name="search", learning_rate=1e-4, max_steps=24)
OWN = replace(PLAIN, guards=Guards(controls=3))
NUMBERS = (0.0, 1.0, 0.0, 1.0)
PREDICTED = replace(PLAIN, name="predicted")


@pytest.mark.parametrize(
    ("defaults", "expected"),
    [
        (Defaults(policy=PLAIN, device="cpu"), LIGHT),
        (Defaults(policy=PLAIN, device="NVIDIA H100"), FULL),
        (Defaults(policy=PLAIN), LIGHT),
        (Defaults(policy=OWN, device="NVIDIA H100"), OWN.guards),
    ],
    ids=["cpu", "gpu", "unknown", "its own"],
)
@pytest.mark.parametrize("again", [False, True])
def test_a_policy_without_guards_gets_what_the_device_can_bear(
    defaults: Defaults, expected: Guards, again: bool
) -> None:
    found = defaults.policy_for(again=again)
    assert found == replace(defaults.policy, guards=expected)


def test_a_fact_without_guards_gets_those_of_the_default_but_not_in_the_papers_way() -> None:
    defaults = Defaults(policy=OWN)
    fixed = Policy(name="fixed", learning_rate=1e-3, max_steps=2)
    assert defaults.policy_for(fixed) == replace(fixed, guards=OWN.guards)
    paper = replace(fixed, name="paper")
    assert defaults.policy_for(paper) == replace(paper, guards=NONE)


def test_what_predicts_rates_is_left_behind_on_a_branch() -> None:
    defaults = Defaults(policy=PREDICTED, predictor=NUMBERS)
    taught = defaults.policy_for()
    assert taught == replace(PREDICTED, predictor=NUMBERS, guards=LIGHT)
    assert defaults.policy_for(recorded=taught) == taught
    for recorded in (None, taught):
        found = defaults.policy_for(recorded=recorded, again=True)
        assert found == replace(PLAIN, guards=LIGHT)


@pytest.mark.parametrize("now", [True, False])
@pytest.mark.parametrize("then", [True, False])
def test_the_gate_is_the_operators_but_a_branch_repeats_what_was_recorded(
    now: bool, then: bool
) -> None:  # M5
    defaults = Defaults(policy=PLAIN, gated=now)
    asked, recorded = replace(OWN, gated=then), replace(OWN, gated=then)
    assert defaults.policy_for(asked).gated is now
    assert defaults.policy_for(recorded=recorded) == replace(recorded, gated=now)
    assert defaults.policy_for(recorded=recorded, again=True) == recorded
    # Nothing was recorded of an attempt that ended with the server.
    assert defaults.policy_for(asked, again=True).gated is now
