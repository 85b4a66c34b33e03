"""Planning a lesson: by which policy a fact is learned, and with how many companions.

The one place that resolves a policy. There are three occasions:

- A fact is *taught*: by its own policy or the default. Guards that it lacks are those of the
  default, or what the device can bear; `predicted` gets the current predictor.
- A held fact is *reviewed*: by the policy of its last attempt, through the gate if the server asks
  for it now, whatever it asked for then.
- An attempt is *repeated* on a branch: exactly as recorded, but without what was predicted from
  history, since the forgotten fact may be part of that history. If nothing was recorded, because
  the attempt ended with the server, it is planned like one that is taught.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

from agent.teaching.guard_presets import FULL, LIGHT, NONE, older_facts
from agent.teaching.rates import PAPER, PREDICTED, SEARCH
from agent.teaching.types import Example
from memory_store.vocabulary import Fact, Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What the operator decides about every lesson.

    Attributes:
        policy: for facts that bring none; its guards for facts that bring none of their own.
        gated: every update must pass the gate, whatever its policy; see `Policy`.
        predictor: for the policy `predicted`; None while too little is known.
        device: `cpu`, or the name of the GPU; see `LearnerDescription`.
    """

    policy: Policy
    gated: bool = False
    predictor: tuple[float, ...] | None = None
    device: str = "cpu"

    def policy_for(
        self, own: Policy | None = None, recorded: Policy | None = None, *, again: bool = False
    ) -> Policy:
        """The policy of a lesson.

        Args:
            own: what the fact brought; None: nothing.
            recorded: of the attempt that is repeated, or after which the fact is reviewed.
            again: the lesson repeats an attempt on a branch.
        """
        if recorded is not None:
            policy = recorded if again else replace(recorded, gated=self.gated)
        else:
            policy = self._taught(own or self.policy)
        return _without_history(policy) if again else policy

    def _taught(self, policy: Policy) -> Policy:
        guards = policy.guards
        if guards is None and policy.name == PAPER:
            guards = NONE
        if guards is None:
            guards = self.policy.guards
        if guards is None:
            guards = LIGHT if self.device == "cpu" else FULL
        predictor = self.predictor if policy.name == PREDICTED else policy.predictor
        return replace(policy, gated=self.gated, guards=guards, predictor=predictor)


@dataclass(frozen=True, slots=True, kw_only=True)
class LessonPlan:
    """All that a learner needs to learn a fact.

    Attributes:
        example: the fact.
        policy: how its rate is chosen, with guards.
        base_version: the version of the weights that the update is made on.
        older: companions: facts that are guarded, and probed afterwards.
        again: an attempt is repeated on a branch; no metric counts it.
    """

    example: Example
    policy: Policy
    base_version: int
    older: tuple[Example, ...] = ()
    again: bool = False

    @property
    def companions(self) -> int:
        """How many older facts are to accompany it."""
        return older_facts(self.policy)

    def accompanied_by(self, older: Iterable[Fact | Example]) -> Self:
        """The plan with its companions."""
        examples = (Example.of(each) if isinstance(each, Fact) else each for each in older)
        return replace(self, older=tuple(examples))


def plan(
    fact: Fact,
    base_version: int,
    defaults: Defaults,
    recorded: Policy | None = None,
    *,
    again: bool = False,
) -> LessonPlan:
    """Plans the lesson of a stored fact, still without companions.

    Args:
        fact: to be learned.
        base_version: of the weights that the update is made on.
        defaults: of the operator.
        recorded: see `Defaults.policy_for`.
        again: likewise.
    """
    return LessonPlan(
        example=Example.of(fact),
        policy=defaults.policy_for(fact.policy, recorded, again=again),
        base_version=base_version,
        again=again,
    )


def _without_history(policy: Policy) -> Policy:
    """A policy that chooses the same rates, knowing nothing of other facts."""
    return replace(policy, name=SEARCH, predictor=None) if policy.name == PREDICTED else policy
