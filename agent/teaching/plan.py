"""The plan of a lesson: the policy of a fact, and the number of its companions.

This is the only place that resolves a policy. There are three cases:

- A fact is *taught*: by its own policy or the default. Missing guards are those of the default, or
  what the device can afford; `predicted` gets the current predictor.
- A held fact is *reviewed*: by the policy of its last attempt, but gated as the server is now.
- An attempt is *repeated* on a branch: as recorded, but without predictions from history, because
  the forgotten fact may be part of that history. If the server ended before anything was recorded,
  the lesson is planned as for a taught fact.
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
    """The operator's settings for every lesson.

    Attributes:
        policy: for facts without a policy; its guards are for policies without guards.
        gated: whether every update must pass the gate; see `Policy`.
        predictor: for the policy `predicted`; None until there is enough data for one.
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
            own: the fact's own policy, if it has one.
            recorded: policy of the attempt to repeat, or of the last one before a review.
            again: whether the lesson repeats an attempt on a branch.
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
    """Everything that a learner needs to learn a fact.

    Attributes:
        example: the fact.
        policy: how its rate is chosen, with guards.
        base_version: version of the weights before the update.
        older: the companions: older facts to guard, and to probe afterwards.
        again: whether this repeats an attempt on a branch, which no metric counts.
    """

    example: Example
    policy: Policy
    base_version: int
    older: tuple[Example, ...] = ()
    again: bool = False

    @property
    def companions(self) -> int:
        """Number of companions that the policy asks for."""
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
    """Plans the lesson of a stored fact, without companions yet.

    Args:
        fact: to learn.
        base_version: version of the weights before the update.
        defaults: of the operator.
        recorded: see `Defaults.policy_for`.
        again: see `Defaults.policy_for`.
    """
    return LessonPlan(
        example=Example.of(fact),
        policy=defaults.policy_for(fact.policy, recorded, again=again),
        base_version=base_version,
        again=again,
    )


def _without_history(policy: Policy) -> Policy:
    """A policy that chooses the same rates without a predictor made from other facts."""
    return replace(policy, name=SEARCH, predictor=None) if policy.name == PREDICTED else policy
