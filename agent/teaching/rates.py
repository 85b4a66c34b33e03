"""Policies: how the learning rate of each step is chosen, and when an attempt ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from agent.teaching.types import Violation
from memory_store.vocabulary import Policy, RatePoint, Refusal, Verdict

FIXED = "fixed"
UNTIL_KNOWN = "until-known"
PAPER = "paper"
SEARCH = "search"
PREDICTED = "predicted"
# Policies that compare candidate rates.
COMPARING = (SEARCH, PREDICTED)
# Policies that take steps until the fact is known, and then repair what those steps disturbed.
UNTIL_LEARNED = (UNTIL_KNOWN, *COMPARING)

MIN_LEARNING_RATE = 1e-8
MAX_LEARNING_RATE = 1e-1
MAX_STEPS = 1000

# The candidates: sixteen rates over the paper's range (Curt 2024, experiment 1), a factor of 1.76
# apart.
GRID: tuple[float, ...] = tuple(1e-6 * 5000.0 ** (number / 15) for number in range(16))

# A fact counts as known once the whole answer has this probability. Greedy generation yields it
# above 0.5; the rest is margin for later updates.
KNOWN_PROBABILITY = 0.9
# For the fact's other forms, greedy generation is enough.
REWORDED_PROBABILITY = 0.5
# An older fact is held as long as greedy generation is certain to yield it.
HELD_PROBABILITY = 0.5

# Several small steps disturb less than a large one (docs/LOG.md). The first facts need the most.
DEFAULT_POLICY = Policy(name=SEARCH, learning_rate=1e-4, max_steps=24)
# Once the fact is known, further steps are repairs of what it disturbed. Steps along signs do not
# converge at a constant rate, and tiny ones repair nothing. So the share of the rate that a repair
# takes follows the loss: it grows while the loss falls (docs/LOG.md).
FIRST_REPAIR, LEAST_REPAIR, MOST_REPAIR = 0.3, 0.03, 0.3
AFTER_FALL, AFTER_RISE = 1.25, 0.5
# After this many repairs, an update that passes the gate is good enough.
REPAIRS = 8
# Least number of candidates in a window on each side of the expected rate.
SIDE = 2
# If an attempt violates a guard, the next one takes this share of the rate.
GENTLER = 1 / 3


@dataclass(frozen=True, slots=True)
class Progress:
    """What is known before each step.

    Attributes:
        steps: how many were taken.
        repairs: how many of them since the fact was known.
        probability: of the fact's answer now.
        reworded: the lowest probability of the answer in the fact's other forms.
        share: of the policy's rate that the next repair takes.
        within_limits: whether rehearsed facts and neighbors allow the update to end.
        violation: why the gate would refuse the update; None if it would pass.
    """

    steps: int
    repairs: int
    share: float
    probability: float
    reworded: float
    within_limits: bool
    violation: Violation | None

    @property
    def known(self) -> bool:
        """Whether the fact needs no further step."""
        return self.probability >= KNOWN_PROBABILITY and self.reworded >= REWORDED_PROBABILITY


@dataclass(frozen=True, slots=True)
class Decision:
    """The end of an attempt.

    Attributes:
        verdict: as in `Outcome`.
        reason: as in `Outcome`.
        refusal: as in `Outcome`.
    """

    verdict: Verdict
    reason: str = ""
    refusal: Refusal | None = None

    @property
    def gate_failed(self) -> bool:
        """Whether the fact was learned, but a guard was violated: a gentler attempt may pass."""
        return self.refusal is not None and self.refusal.by_guard

    @classmethod
    def refused(cls, violation: Violation, steps: int) -> Self:
        """The end of an attempt that violates a guard after `steps` steps."""
        return cls(Verdict.RESISTED, f"{violation.message} after {steps} steps", violation.refusal)


def decide(policy: Policy, progress: Progress) -> Decision | None:
    """Returns how the attempt ends, or None to take another step.

    Raises:
        ValueError: the policy's name is unknown.
    """
    if policy.name not in POLICIES:
        raise ValueError(f"unknown policy {policy.name!r}: use one of {', '.join(POLICIES)}")
    return POLICIES[policy.name](policy, progress)


def compares_rates(policy: Policy, progress: Progress) -> bool:
    """Whether the next step's rate is chosen among candidates."""
    return policy.name in COMPARING and not progress.known


def next_rate(policy: Policy, progress: Progress, profile: Sequence[RatePoint]) -> float:
    """The rate of the next step.

    Args:
        policy: of the fact.
        progress: before the step.
        profile: the answer's probability after the step at each candidate rate, if compared.
    """
    if compares_rates(policy, progress):
        return smallest_reaching(profile, KNOWN_PROBABILITY, policy.learning_rate)
    if progress.known and policy.name in UNTIL_LEARNED:
        return policy.learning_rate * progress.share
    return policy.learning_rate


def next_share(share: float, before: float, after: float) -> float:
    """The share of the next repair.

    Args:
        share: of the last repair.
        before: loss before it.
        after: loss after it.
    """
    changed = share * (AFTER_FALL if after < before else AFTER_RISE)
    return min(max(changed, LEAST_REPAIR), MOST_REPAIR)


def smallest_reaching(profile: Sequence[RatePoint], target: float, largest: float) -> float:
    """The smallest rate that reaches a probability, or the largest allowed rate if none does.

    The rate that comes closest would be worse: steps became smaller and smaller, and six of the
    first 23 facts were never known (docs/LOG.md).

    Args:
        profile: candidate rates, ascending.
        target: probability, 0 to 1.
        largest: no larger rate is chosen.
    """
    for point in profile:
        if point.learning_rate <= largest and point.probability >= target:
            return point.learning_rate
    return largest


def compare(
    score: Callable[[Sequence[float]], list[RatePoint]],
    largest: float,
    window: Sequence[float] = (),
) -> list[RatePoint]:
    """Scores a step at candidate rates, first only at those of a window.

    If the window does not show which rate `search` would choose, the other candidates are scored
    too. No candidate is scored twice.

    Args:
        score: scores the given rates.
        largest: no larger rate is chosen.
        window: from `window_around`; empty for all candidates.
    """
    if not window:
        return score(GRID)
    profile = score(window)
    if shows_choice(profile, KNOWN_PROBABILITY, largest):
        return profile
    others = score([rate for rate in GRID if rate not in window])
    return sorted([*profile, *others], key=lambda point: point.learning_rate)


def window_around(expected: float, spread: float, largest: float) -> tuple[float, ...]:
    """The allowed candidates around the one that is nearest to an expected rate.

    Args:
        expected: rate.
        spread: standard deviation of the expectation's error, in log10 of the rate.
        largest: allowed rate; if no candidate is allowed, the window is empty.
    """
    allowed = [rate for rate in GRID if rate <= largest]
    if not allowed:
        return ()
    distances = [abs(math.log10(rate / expected)) for rate in allowed]
    nearest = distances.index(min(distances))
    # One more below than above: only a lower rate that does not reach shows which is the smallest.
    side = max(SIDE, 1 + math.ceil(spread / math.log10(GRID[1] / GRID[0])))
    return tuple(allowed[max(0, nearest - side) : nearest + side])


def shows_choice(window: Sequence[RatePoint], target: float, largest: float) -> bool:
    """Whether `smallest_reaching` chooses the same rate from the window as from all candidates.

    If a rate in the window reaches the target, its lowest rate must not; exact if the reaching
    rates form an interval. If none does, the window must contain the peak; exact if the
    probability has a single peak.

    Args:
        window: adjacent candidates, ascending, at least one, none larger than allowed.
        target: probability, 0 to 1.
        largest: allowed rate.
    """
    heights = [point.probability for point in window]
    lowest, highest = window[0].learning_rate, window[-1].learning_rate
    at_bottom = lowest <= GRID[0]
    if any(height >= target for height in heights):
        return at_bottom or heights[0] < target
    at_top = not any(highest < rate <= largest for rate in GRID)
    rises = len(heights) > 1 and heights[0] < heights[1]
    falls = len(heights) > 1 and heights[-2] > heights[-1]
    return (at_bottom or rises) and (at_top or falls)


def attempts(policy: Policy) -> list[Policy]:
    """The policies of successive attempts: each is tried if the one before violated a guard."""
    if policy.name not in UNTIL_LEARNED:
        return [policy]
    return [policy, replace(policy, learning_rate=policy.learning_rate * GENTLER)]


def _fixed(policy: Policy, progress: Progress) -> Decision | None:
    return Decision(Verdict.LEARNED) if progress.steps >= policy.max_steps else None


def _until_known(policy: Policy, progress: Progress) -> Decision | None:
    rested = progress.within_limits or progress.repairs >= REPAIRS
    if progress.known and rested and progress.violation is None:
        return Decision(Verdict.LEARNED)
    if progress.steps < policy.max_steps:
        return None
    if not progress.known:
        probability = min(progress.probability, progress.reworded)
        return Decision(
            Verdict.RESISTED,
            f"probability {probability:.3f} after {progress.steps} steps"
            f" of at most {policy.learning_rate:g}",
            Refusal.NOT_LEARNED,
        )
    if progress.violation is not None:
        return Decision.refused(progress.violation, progress.steps)
    # Not within the limits for an early end, but the gate passes it.
    return Decision(Verdict.LEARNED)


POLICIES: dict[str, Callable[[Policy, Progress], Decision | None]] = {
    FIXED: _fixed,
    PAPER: _fixed,
    UNTIL_KNOWN: _until_known,
    SEARCH: _until_known,
    PREDICTED: _until_known,
}
