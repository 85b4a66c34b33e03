"""How the learning rate of a fact is chosen, and when learning it ends."""

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
# They compare candidate rates.
COMPARING = (SEARCH, PREDICTED)
# They take steps until the fact is known, and mend what that disturbed.
UNTIL_LEARNED = (UNTIL_KNOWN, *COMPARING)

MIN_LEARNING_RATE = 1e-8
MAX_LEARNING_RATE = 1e-1
MAX_STEPS = 1000

# The candidates: sixteen rates, the paper's range (Curt 2024, experiment 1), 1.76 between two.
GRID: tuple[float, ...] = tuple(1e-6 * 5000.0 ** (number / 15) for number in range(16))

# A fact counts as known once the whole answer has this probability: greedy generation yields it
# from 0.5 on, and the rest is margin against the updates that follow.
KNOWN_PROBABILITY = 0.9
# In its other forms it is enough that greedy generation yields it.
REWORDED_PROBABILITY = 0.5
# An older fact is held as long as greedy generation yields it for certain.
HELD_PROBABILITY = 0.5

# Several small steps disturb less than a large one (docs/LOG.md). The first facts need most steps.
DEFAULT_POLICY = Policy(name=SEARCH, learning_rate=1e-4, max_steps=24)
# Once the fact is known, steps only mend what its learning disturbed. Along signs they never come
# to rest at one rate, and mend nothing once they are tiny: so the share of the rate that they
# take follows the loss, growing while it falls (docs/LOG.md).
FIRST_REPAIR, LEAST_REPAIR, MOST_REPAIR = 0.3, 0.03, 0.3
AFTER_FALL, AFTER_RISE = 1.25, 0.5
# After so many, what the gate lets pass is good enough.
REPAIRS = 8
# Of a window of candidates, at least so many on each side of the expected rate.
SIDE = 2
# A fact that breaks a guard is tried once more, more gently.
GENTLER = 1 / 3


@dataclass(frozen=True, slots=True)
class Progress:
    """What is known before each step.

    Attributes:
        steps: how many were taken.
        repairs: how many of them since the fact was known.
        probability: of the fact's answer now.
        reworded: the lowest probability of it in the fact's other forms.
        share: of the policy's rate, that a repair takes now.
        within_limits: rehearsed facts and neighbours are where an update may end.
        violation: what the gate would refuse; None if it would let the update pass.
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
        reason: likewise.
        refusal: likewise.
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
        """The end of an attempt that violates a guard after so many steps."""
        return cls(Verdict.RESISTED, f"{violation.message} after {steps} steps", violation.refusal)


def decide(policy: Policy, progress: Progress) -> Decision | None:
    """Whether a fact has had its steps; None for one more.

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
        profile: what the step would lead to at each candidate rate, if they are compared.
    """
    if compares_rates(policy, progress):
        return smallest_reaching(profile, KNOWN_PROBABILITY, policy.learning_rate)
    if progress.known and policy.name in UNTIL_LEARNED:
        return policy.learning_rate * progress.share
    return policy.learning_rate


def next_share(share: float, before: float, after: float) -> float:
    """The share of the next repair.

    Args:
        share: of the one just made.
        before: the loss that it was to lower.
        after: the loss now.
    """
    changed = share * (AFTER_FALL if after < before else AFTER_RISE)
    return min(max(changed, LEAST_REPAIR), MOST_REPAIR)


def smallest_reaching(profile: Sequence[RatePoint], target: float, largest: float) -> float:
    """The smallest rate that reaches a probability; the largest allowed one if none does.

    Not the one that comes closest: chosen so, steps grew smaller and smaller, and six of the first
    23 facts were never known (docs/LOG.md).

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
    """What a step would lead to at candidate rates: at those of a window, if they will do.

    If they do not show which rate search would choose, the others are scored too; never more than
    search scores.

    Args:
        score: gives it for some rates.
        largest: no larger rate is chosen.
        window: as `window_around` gives it; empty for all candidates.
    """
    if not window:
        return score(GRID)
    profile = score(window)
    if shows_choice(profile, KNOWN_PROBABILITY, largest):
        return profile
    others = score([rate for rate in GRID if rate not in window])
    return sorted([*profile, *others], key=lambda point: point.learning_rate)


def window_around(expected: float, spread: float, largest: float) -> tuple[float, ...]:
    """The candidates around the one that is nearest to an expected rate; none too large.

    Args:
        expected: rate.
        spread: how far off expectations are: standard deviation of the rate's log10.
        largest: allowed rate. Without any candidate up to it, the window is empty.
    """
    allowed = [rate for rate in GRID if rate <= largest]
    if not allowed:
        return ()
    distances = [abs(math.log10(rate / expected)) for rate in allowed]
    nearest = distances.index(min(distances))
    # One more below than above: a rate is the smallest only beside one that does not reach.
    side = max(SIDE, 1 + math.ceil(spread / math.log10(GRID[1] / GRID[0])))
    return tuple(allowed[max(0, nearest - side) : nearest + side])


def shows_choice(window: Sequence[RatePoint], target: float, largest: float) -> bool:
    """Whether `smallest_reaching` chooses from the window as it would from all candidates.

    If a rate in it reaches, the one below must be seen not to: sure where the reaching rates are an
    interval. If none does, the peak must be in it: sure where the probability has one peak.

    Args:
        window: neighbouring candidates, ascending, at least one, none larger than allowed.
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
    """The policy, and how it is tried again if a guard was broken."""
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
    # Outside the limits at which it may end early, but the gate lets it pass.
    return Decision(Verdict.LEARNED)


POLICIES: dict[str, Callable[[Policy, Progress], Decision | None]] = {
    FIXED: _fixed,
    PAPER: _fixed,
    UNTIL_KNOWN: _until_known,
    SEARCH: _until_known,
    PREDICTED: _until_known,
}
