"""The operator's limits for clients: policies, learning rates, steps.

They are checked when a fact is accepted and never again: the ledger is replayed as recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from agent.errors import InvalidFactError
from agent.teaching import rates
from memory_store.vocabulary import Policy

# The largest rate in the paper's experiments, and the largest that `search` tries.
SAFE_LEARNING_RATE = 5e-3
# The default policy takes at most 24. On a CPU a step takes seconds, and nothing else learns then.
SAFE_STEPS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class TeachingLimits:
    """What clients may ask for.

    Attributes:
        policies: names of allowed policies.
        largest_learning_rate: of a step.
        most_steps: for one fact.
        gated: whether every update must pass the gate, whatever its policy and guards.
    """

    policies: tuple[str, ...] = tuple(rates.POLICIES)
    largest_learning_rate: float = rates.MAX_LEARNING_RATE
    most_steps: int = rates.MAX_STEPS
    gated: bool = False

    def check(self, policy: Policy) -> None:
        """Checks a policy that a client asked for.

        Raises:
            InvalidFactError: it is not allowed; the error names each wrong field and its limit.
        """
        if violations := list(self._violations(policy)):
            (field, text), *more = violations
            raise InvalidFactError(field, text, more)

    def complete(self, asked: Policy, completed: Policy) -> Policy:
        """Lowers the server's defaults in a policy to the limits.

        Args:
            asked: as the client sent it, with zeros where the server is to choose.
            completed: the same with the server's defaults in place of zeros.
        """
        rate, steps = completed.learning_rate, completed.max_steps
        return replace(
            completed,
            learning_rate=rate if asked.learning_rate else min(rate, self.largest_learning_rate),
            max_steps=steps if asked.max_steps else min(steps, self.most_steps),
        )

    def _violations(self, policy: Policy) -> Iterator[tuple[str, str]]:
        if policy.name not in self.policies:
            allowed = ", ".join(self.policies)
            yield (
                "learning_rate_policy",
                f"this server does not allow the policy '{policy.name}': use one of {allowed}",
            )
            return
        if not policy.learning_rate <= self.largest_learning_rate:
            yield (
                _field(policy, "learning_rate"),
                f"{policy.learning_rate:g} is more than this server allows:"
                f" at most {self.largest_learning_rate:g}",
            )
        if policy.max_steps > self.most_steps:
            yield (
                _field(policy, "max_steps"),
                f"{policy.max_steps} is more than this server allows: at most {self.most_steps}",
            )


# For a learner that only its operator uses.
UNLIMITED = TeachingLimits()


def _field(policy: Policy, number: str) -> str:
    """The path of a number in `TeachRequest`."""
    if number == "learning_rate" and policy.name in rates.COMPARING:
        number = "largest_learning_rate"
    if number == "max_steps" and policy.name in (rates.FIXED, rates.PAPER):
        number = "steps"
    return f"learning_rate_policy.{policy.name.replace('-', '_')}.{number}"
