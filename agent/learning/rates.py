"""How the learning rate of a fact is chosen, and when learning it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from memory_store.records import Policy, RatePoint

FIXED = "fixed"
UNTIL_KNOWN = "until-known"
PAPER = "paper"
SEARCH = "search"

MIN_LEARNING_RATE = 1e-8
MAX_LEARNING_RATE = 1e-1
MAX_STEPS = 1000

# A fact counts as known once the whole answer has this probability: greedy generation yields it
# from 0.5 on, and the rest is margin against the updates that follow.
KNOWN_PROBABILITY = 0.9
# In its other forms it is enough that greedy generation yields it.
REWORDED_PROBABILITY = 0.5
# An older fact is held as long as greedy generation yields it for certain.
HELD_PROBABILITY = 0.5

# Larger single steps do more damage than several small ones: capped at 2e-4, a fifth of the
# controls changed that did not at 1e-4 (docs/LOG.md).
DEFAULT_POLICY = Policy(name=SEARCH, learning_rate=1e-4, max_steps=12)
# Once the fact is known, steps only mend what its learning disturbed: each smaller than the last,
# because at one rate steps along signs never come to rest.
FIRST_REPAIR, REPAIR_DECAY = 0.5, 0.6
# How far below the largest rate a step may stay that does not reach its target.
STRIDE = 4.0
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
        calm: rehearsed facts and neighbours are where an update may end.
        broken: why the gate would not let it pass; empty if it would.
    """

    steps: int
    repairs: int
    probability: float
    reworded: float
    calm: bool
    broken: str

    @property
    def known(self) -> bool:
        """Whether the fact needs no further step."""
        return self.probability >= KNOWN_PROBABILITY and self.reworded >= REWORDED_PROBABILITY


@dataclass(frozen=True, slots=True)
class Decision:
    """The end of an attempt: `verdict` and `reason` as in `Outcome`."""

    verdict: str
    reason: str = ""


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
    return policy.name == SEARCH and not progress.known


def next_rate(policy: Policy, progress: Progress, profile: Sequence[RatePoint]) -> float:
    """The rate of the next step.

    Args:
        policy: of the fact.
        progress: before the step.
        profile: what the step would lead to at each candidate rate, if they are compared.
    """
    if compares_rates(policy, progress):
        return smallest_reaching(profile, KNOWN_PROBABILITY, policy.learning_rate)
    if progress.known and policy.name in (SEARCH, UNTIL_KNOWN):
        return policy.learning_rate * FIRST_REPAIR * REPAIR_DECAY**progress.repairs
    return policy.learning_rate


def smallest_reaching(profile: Sequence[RatePoint], target: float, largest: float) -> float:
    """The smallest rate that reaches a probability; if none does, the best of the larger ones.

    Where one step cannot reach it, steps much smaller than allowed would hardly move, so only the
    upper `STRIDE` of the rates is looked at then.

    Args:
        profile: candidate rates, ascending.
        target: probability, 0 to 1.
        largest: no larger rate is chosen; if all are larger, this one is.
    """
    allowed = [point for point in profile if point.learning_rate <= largest]
    reaching = [point for point in allowed if point.probability >= target]
    if reaching:
        return reaching[0].learning_rate
    upper = [point for point in allowed if point.learning_rate * STRIDE >= largest]
    return max(upper, key=lambda point: point.probability).learning_rate if upper else largest


def attempts(policy: Policy) -> list[Policy]:
    """The policy, and how it is tried again if a guard was broken."""
    if policy.name not in (SEARCH, UNTIL_KNOWN):
        return [policy]
    gentler = Policy(
        name=policy.name,
        learning_rate=policy.learning_rate * GENTLER,
        max_steps=policy.max_steps,
        guards=policy.guards,
    )
    return [policy, gentler]


def _fixed(policy: Policy, progress: Progress) -> Decision | None:
    return Decision("learned") if progress.steps >= policy.max_steps else None


def _until_known(policy: Policy, progress: Progress) -> Decision | None:
    if progress.known and progress.calm and not progress.broken:
        return Decision("learned")
    if progress.steps < policy.max_steps:
        return None
    if not progress.known:
        probability = min(progress.probability, progress.reworded)
        return Decision(
            "resisted",
            f"probability {probability:.3f} after {progress.steps} steps"
            f" of at most {policy.learning_rate:g}",
        )
    if progress.broken:
        return Decision("resisted", f"{progress.broken} after {progress.steps} steps")
    # What is not calm is not broken either: the gate lets it pass.
    return Decision("learned")


POLICIES: dict[str, Callable[[Policy, Progress], Decision | None]] = {
    FIXED: _fixed,
    PAPER: _fixed,
    UNTIL_KNOWN: _until_known,
    SEARCH: _until_known,
}
