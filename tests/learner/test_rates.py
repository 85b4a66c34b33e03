"""Rates: the decision before each step, and the rate of the next, for each policy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.teaching.rates import (
    DEFAULT_POLICY,
    FIRST_REPAIR,
    FIXED,
    KNOWN_PROBABILITY,
    LEAST_REPAIR,
    MAX_LEARNING_RATE,
    MAX_STEPS,
    MIN_LEARNING_RATE,
    MOST_REPAIR,
    PAPER,
    POLICIES,
    PREDICTED,
    REPAIRS,
    REWORDED_PROBABILITY,
    SEARCH,
    UNTIL_KNOWN,
    Decision,
    Progress,
    attempts,
    compares_rates,
    decide,
    next_rate,
    next_share,
    smallest_reaching,
)
from agent.teaching.types import Violation
from memory_store.vocabulary import Guards, Policy, RatePoint, Refusal, Verdict

RATE, LIMIT = 3e-5, 4
LEARNED = Decision(Verdict.LEARNED)
# One digit below: as near as the thresholds need to be told apart.
UNKNOWN_PROBABILITY = KNOWN_PROBABILITY - 1e-6
CHANGED = "general text would change (divergence 0.30 nats a token)"
VIOLATION = Violation(Refusal.GENERAL_TEXT, CHANGED)
# Known, within all limits and without a violation after one step.
DONE = Progress(
    steps=1,
    repairs=0,
    share=FIRST_REPAIR,
    probability=0.99,
    reworded=0.9,
    within_limits=True,
    violation=None,
)


def policy_of(name: str) -> Policy:
    return Policy(name=name, learning_rate=RATE, max_steps=LIMIT)


def curve(*points: tuple[float, float]) -> list[RatePoint]:
    return [RatePoint(rate, probability) for rate, probability in points]


# --- When it ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [FIXED, PAPER])
@pytest.mark.parametrize(
    ("steps", "probability", "within_limits", "violation", "expected"),
    [
        (0, 0.0, True, None, None),
        (LIMIT - 1, 0.0, True, None, None),
        (1, 1.0, True, None, None),  # what it reached does not matter, only the number of steps
        (LIMIT, 1.0, True, None, LEARNED),
        (LIMIT, 0.0, False, VIOLATION, LEARNED),
    ],
)
def test_fixed_and_paper_take_exactly_their_steps(
    name: str,
    steps: int,
    probability: float,
    within_limits: bool,
    violation: Violation | None,
    expected: Decision | None,
):
    progress = replace(
        DONE, steps=steps, probability=probability, within_limits=within_limits, violation=violation
    )
    assert decide(policy_of(name), progress) == expected


@pytest.mark.parametrize("name", [UNTIL_KNOWN, SEARCH, PREDICTED])
@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, LEARNED),
        ({"steps": 0, "probability": 0.0}, None),
        ({"probability": UNKNOWN_PROBABILITY}, None),
        ({"probability": KNOWN_PROBABILITY}, LEARNED),
        ({"reworded": REWORDED_PROBABILITY}, LEARNED),
        ({"reworded": REWORDED_PROBABILITY - 1e-6}, None),  # it hangs on the wording yet
        ({"steps": 0, "probability": 1.0}, LEARNED),
        ({"within_limits": False}, None),  # an older fact or a neighbour must come back first
        ({"violation": VIOLATION}, None),
        ({"repairs": REPAIRS - 1, "within_limits": False}, None),
        (
            {"repairs": REPAIRS, "within_limits": False},
            LEARNED,
        ),  # what the gate passes is good enough
        ({"repairs": REPAIRS, "violation": VIOLATION}, None),
        ({"steps": LIMIT - 1, "within_limits": False}, None),
        ({"steps": LIMIT - 1, "violation": VIOLATION}, None),
        ({"steps": LIMIT, "probability": KNOWN_PROBABILITY}, LEARNED),  # reached by the last step
        ({"probability": float("nan")}, None),
        ({"reworded": float("nan")}, None),
    ],
)
def test_the_others_go_on_until_the_fact_is_known_and_all_else_is_as_it_was(
    name: str, changed: dict[str, float | bool | Violation], expected: Decision | None
):
    assert decide(policy_of(name), replace(DONE, **changed)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [UNTIL_KNOWN, SEARCH, PREDICTED])
@pytest.mark.parametrize(("probability", "reworded"), [(0.25, 0.9), (0.95, 0.25), (0.25, 0.3)])
@pytest.mark.parametrize("violation", [None, VIOLATION])
def test_a_fact_that_stays_unknown_resists_and_says_how_far_it_came(
    name: str, probability: float, reworded: float, violation: Violation | None
):
    progress = replace(
        DONE, steps=LIMIT, probability=probability, reworded=reworded, violation=violation
    )
    # The weakest of its forms: the one that kept it from being known.
    reason = "probability 0.250 after 4 steps of at most 3e-05"
    # Gentler steps would not make it known either: no second attempt, whatever else it broke.
    assert decide(policy_of(name), progress) == Decision(
        Verdict.RESISTED, reason, Refusal.NOT_LEARNED
    )


@pytest.mark.parametrize("name", [UNTIL_KNOWN, SEARCH, PREDICTED])
@pytest.mark.parametrize("within_limits", [True, False])
def test_a_known_fact_that_the_gate_holds_back_resists_and_says_why(name: str, within_limits: bool):
    end = decide(
        policy_of(name),
        replace(DONE, steps=LIMIT, within_limits=within_limits, violation=VIOLATION),
    )
    assert end is not None
    assert end.gate_failed
    assert end == Decision(Verdict.RESISTED, f"{CHANGED} after 4 steps", Refusal.GENERAL_TEXT)


@pytest.mark.parametrize("name", [UNTIL_KNOWN, SEARCH, PREDICTED])
def test_what_never_comes_to_rest_passes_without_a_violation(name: str):
    assert decide(policy_of(name), replace(DONE, steps=LIMIT, within_limits=False)) == LEARNED


def test_an_unknown_policy_is_refused_with_the_names_of_the_known():
    with pytest.raises(ValueError, match=r"'magic'.*fixed, paper, until-known, search, predicted"):
        decide(policy_of("magic"), DONE)


# --- The rate of the next step --------------------------------------------------------------------

RISING = curve((1e-6, 0.1), (1e-5, 0.6), (3e-5, 0.95), (1e-4, 0.99), (1e-3, 0.2))


@pytest.mark.parametrize(
    ("profile", "largest", "expected"),
    [
        pytest.param(RISING, 1e-2, 3e-5, id="the smallest that reaches it"),
        pytest.param(RISING, 3e-5, 3e-5, id="the largest itself is allowed"),
        pytest.param(RISING, 2.9e-5, 2.9e-5, id="what reaches it is too large"),
        pytest.param(RISING, 1e-7, 1e-7, id="all are too large"),
        pytest.param(curve((1e-5, 0.9), (1e-4, 1.0)), 1e-4, 1e-5, id="exactly the target"),
        pytest.param(
            curve((1e-5, 0.8), (3e-5, 0.7), (1e-4, 0.5)), 1e-4, 1e-4, id="none reaches it"
        ),
        pytest.param(
            curve((5e-5, 0.89), (9e-5, 0.1)), 1e-4, 1e-4, id="the limit lies between candidates"
        ),
        pytest.param(curve((5e-5, 0.95), (1e-4, 0.95)), 1e-4, 5e-5, id="the smaller of two equal"),
        pytest.param(
            curve((5e-5, float("nan")), (1e-4, 0.95)), 1e-4, 1e-4, id="what is not a number"
        ),
        pytest.param([], 1e-4, 1e-4, id="nothing was compared"),
    ],
)
def test_the_smallest_rate_that_reaches_the_target(
    profile: list[RatePoint], largest: float, expected: float
):
    assert smallest_reaching(profile, 0.9, largest) == expected


UNKNOWN = replace(DONE, probability=0.5)


@pytest.mark.parametrize("name", POLICIES)
def test_rates_are_compared_where_they_are_chosen_and_only_until_the_fact_is_known(name: str):
    assert compares_rates(policy_of(name), UNKNOWN) == (name in {SEARCH, PREDICTED})
    assert not compares_rates(policy_of(name), DONE)


@pytest.mark.parametrize("name", [SEARCH, PREDICTED])
def test_search_takes_the_smallest_rate_that_makes_the_fact_known(name: str):
    policy = replace(policy_of(name), learning_rate=1e-3)
    assert next_rate(policy, UNKNOWN, RISING) == 3e-5
    assert next_rate(replace(policy, learning_rate=1e-5), UNKNOWN, RISING) == 1e-5


@pytest.mark.parametrize("name", [FIXED, PAPER, UNTIL_KNOWN])
def test_the_others_take_the_rate_that_they_were_given(name: str):
    assert next_rate(policy_of(name), UNKNOWN, ()) == RATE


@pytest.mark.parametrize("name", [UNTIL_KNOWN, SEARCH, PREDICTED])
def test_a_repair_takes_its_share_of_the_rate(name: str):
    mending = replace(DONE, within_limits=False, share=0.25)
    assert next_rate(policy_of(name), mending, ()) == RATE * 0.25


def test_the_share_of_repairs_grows_while_the_loss_falls():
    share = LEAST_REPAIR
    for _ in range(20):
        grown = next_share(share, before=2.0, after=1.0)
        assert grown > share or grown == MOST_REPAIR
        share = grown
    assert share == MOST_REPAIR


@pytest.mark.parametrize("after", [1.0, 2.0, float("nan")])
def test_the_share_of_repairs_shrinks_when_the_loss_does_not_fall(after: float):
    share = FIRST_REPAIR
    for _ in range(20):
        shrunk = next_share(share, before=1.0, after=after)
        assert shrunk < share or shrunk == LEAST_REPAIR
        share = shrunk
    assert share == LEAST_REPAIR


@pytest.mark.parametrize("name", [FIXED, PAPER])
def test_a_number_of_steps_knows_no_repairs(name: str):
    assert next_rate(policy_of(name), replace(DONE, within_limits=False, repairs=2), ()) == RATE


# --- How often it is tried ------------------------------------------------------------------------


@pytest.mark.parametrize("name", [UNTIL_KNOWN, SEARCH, PREDICTED])
def test_one_gentler_attempt_follows(name: str):
    policy = replace(policy_of(name), guards=Guards(controls=2))
    first, gentler = attempts(policy)
    assert first is policy
    assert gentler == replace(policy, learning_rate=gentler.learning_rate)
    assert gentler.learning_rate == pytest.approx(RATE / 3)


@pytest.mark.parametrize("name", [FIXED, PAPER])
def test_a_number_of_steps_is_taken_once(name: str):
    assert attempts(policy_of(name)) == [policy_of(name)]


def test_the_default_policy_is_one_that_a_client_could_send():
    assert DEFAULT_POLICY.name in POLICIES
    assert MIN_LEARNING_RATE <= DEFAULT_POLICY.learning_rate <= MAX_LEARNING_RATE
    assert 1 <= DEFAULT_POLICY.max_steps <= MAX_STEPS
