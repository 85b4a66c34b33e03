"""How the learning rate of a fact is chosen, and when learning it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from memory_store.records import Policy

FIXED = "fixed"
UNTIL_KNOWN = "until-known"

MIN_LEARNING_RATE = 1e-8
MAX_LEARNING_RATE = 1e-1
MAX_STEPS = 1000

# A fact counts as known once the whole answer has this probability: greedy generation yields it
# from 0.5 on, and the rest is margin against the updates that follow.
KNOWN_PROBABILITY = 0.9
# An older fact is held as long as greedy generation yields it for certain.
HELD_PROBABILITY = 0.5

# 1e-4 recalled ten of the paper's ten facts, taught one after the other with rehearsal, in two
# to four steps each; 3e-5 needed more steps and lost one (docs/LOG.md).
DEFAULT_POLICY = Policy(name=UNTIL_KNOWN, learning_rate=1e-4, max_steps=20)


@dataclass(frozen=True, slots=True)
class Progress:
    """What is known before each step.

    Attributes:
        steps: how many were taken.
        probability: of the fact's answer now.
        held: whether every rehearsed fact that was held at the start still is.
    """

    steps: int
    probability: float
    held: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """Either a rate for one more step, or the end: `verdict` as in `Outcome`."""

    learning_rate: float | None = None
    verdict: str = ""
    reason: str = ""


def decide(policy: Policy, progress: Progress) -> Decision:
    """What to do next for a fact under a policy.

    Raises:
        ValueError: the policy's name is unknown.
    """
    if policy.name not in POLICIES:
        raise ValueError(f"unknown policy {policy.name!r}: use one of {', '.join(POLICIES)}")
    return POLICIES[policy.name](policy, progress)


def _fixed(policy: Policy, progress: Progress) -> Decision:
    if progress.steps < policy.max_steps:
        return Decision(learning_rate=policy.learning_rate)
    return Decision(verdict="learned")


def _until_known(policy: Policy, progress: Progress) -> Decision:
    known = progress.probability >= KNOWN_PROBABILITY
    if known and progress.held:
        return Decision(verdict="learned")
    if progress.steps < policy.max_steps:
        return Decision(learning_rate=policy.learning_rate)
    reason = (
        f"an older fact was lost for it after {progress.steps} steps"
        if known
        else f"probability {progress.probability:.3f} after {progress.steps} steps"
        f" at rate {policy.learning_rate:g}"
    )
    return Decision(verdict="resisted", reason=reason)


POLICIES: dict[str, Callable[[Policy, Progress], Decision]] = {
    FIXED: _fixed,
    UNTIL_KNOWN: _until_known,
}
