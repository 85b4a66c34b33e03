"""Rates: the decision before each step, for each policy."""

from __future__ import annotations

import pytest

from agent.learning.rates import (
    DEFAULT_POLICY,
    FIXED,
    KNOWN_PROBABILITY,
    MAX_LEARNING_RATE,
    MAX_STEPS,
    MIN_LEARNING_RATE,
    POLICIES,
    UNTIL_KNOWN,
    Decision,
    Progress,
    decide,
)
from memory_store.records import Policy

RATE, LIMIT = 3e-5, 4
GO_ON = Decision(learning_rate=RATE)
LEARNED = Decision(verdict="learned")
UNKNOWN_PROBABILITY = KNOWN_PROBABILITY - 1e-6


def decision(name: str, steps: int, probability: float, held: bool) -> Decision:
    policy = Policy(name=name, learning_rate=RATE, max_steps=LIMIT)
    return decide(policy, Progress(steps, probability, held))


@pytest.mark.parametrize(
    ("steps", "probability", "held", "expected"),
    [
        (0, 0.0, True, GO_ON),
        (LIMIT - 1, 0.0, True, GO_ON),
        (1, 1.0, True, GO_ON),  # what it reached does not matter, only the number of steps
        (LIMIT, 1.0, True, LEARNED),
        (LIMIT, 0.0, False, LEARNED),
    ],
)
def test_fixed_takes_exactly_its_steps(
    steps: int, probability: float, held: bool, expected: Decision
):
    assert decision(FIXED, steps, probability, held) == expected


@pytest.mark.parametrize(
    ("steps", "probability", "held", "expected"),
    [
        (0, 0.0, True, GO_ON),
        (1, UNKNOWN_PROBABILITY, True, GO_ON),
        (1, KNOWN_PROBABILITY, True, LEARNED),
        (0, 1.0, True, LEARNED),
        (1, 1.0, False, GO_ON),  # an older fact must come back first
        (LIMIT - 1, 1.0, False, GO_ON),
        (LIMIT, KNOWN_PROBABILITY, True, LEARNED),  # reached by the last step
        (1, float("nan"), True, GO_ON),
    ],
)
def test_until_known_goes_on_until_the_fact_is_known_and_the_older_are_held(
    steps: int, probability: float, held: bool, expected: Decision
):
    assert decision(UNTIL_KNOWN, steps, probability, held) == expected


@pytest.mark.parametrize("held", [True, False])
def test_a_fact_that_stays_unknown_resists_and_says_how_far_it_came(held: bool):
    end = decision(UNTIL_KNOWN, LIMIT, 0.25, held)
    assert (end.learning_rate, end.verdict) == (None, "resisted")
    assert end.reason == "probability 0.250 after 4 steps at rate 3e-05"


def test_a_known_fact_that_cost_an_older_one_resists_and_says_so():
    end = decision(UNTIL_KNOWN, LIMIT, 0.99, held=False)
    assert (end.learning_rate, end.verdict) == (None, "resisted")
    assert end.reason == "an older fact was lost for it after 4 steps"


def test_an_unknown_policy_is_refused_with_the_names_of_the_known():
    with pytest.raises(ValueError, match=r"'magic'.*fixed, until-known"):
        decision("magic", 0, 0.0, held=True)


def test_the_default_policy_is_one_that_a_client_could_send():
    assert DEFAULT_POLICY.name in POLICIES
    assert MIN_LEARNING_RATE <= DEFAULT_POLICY.learning_rate <= MAX_LEARNING_RATE
    assert 1 <= DEFAULT_POLICY.max_steps <= MAX_STEPS
