"""What the operator of a server lets clients ask for: policies, learning rates, steps.

Checked when a fact is accepted, never afterwards: what the ledger recorded is replayed as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from agent.errors import InvalidFactError
from agent.teaching import rates
from memory_store.vocabulary import Policy

# The largest rate of the paper's experiments, which is also the largest one that `search` tries.
SAFE_LEARNING_RATE = 5e-3
# The default policy takes 24 at most. A step takes seconds on a CPU, and nobody else learns then.
SAFE_STEPS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class TeachingLimits:
    """What clients may ask for.

    Attributes:
        policies: names of the policies that a fact may bring.
        largest_learning_rate: of a step.
        most_steps: of one fact.
        gated: every update must pass the gate, whatever its policy and guards.
    """

    policies: tuple[str, ...] = tuple(rates.POLICIES)
    largest_learning_rate: float = rates.MAX_LEARNING_RATE
    most_steps: int = rates.MAX_STEPS
    gated: bool = False

    def check(self, policy: Policy) -> None:
        """Lets a policy pass that a client asked for.

        Raises:
            InvalidFactError: it is not allowed; names each field that is wrong, and its limit.
        """
        if violations := list(self._violations(policy)):
            (field, text), *more = violations
            raise InvalidFactError(field, text, more)

    def complete(self, asked: Policy, completed: Policy) -> Policy:
        """A policy whose numbers were left to the server, in part: those stay within the limits.

        Args:
            asked: as the client sent it, with zeros for what is left to the server.
            completed: the same with the server's defaults.
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


# For a learner whose operator is its only client.
UNLIMITED = TeachingLimits()


def _field(policy: Policy, number: str) -> str:
    """The path of a number in `TeachRequest`."""
    if number == "learning_rate" and policy.name in rates.COMPARING:
        number = "largest_learning_rate"
    if number == "max_steps" and policy.name in (rates.FIXED, rates.PAPER):
        number = "steps"
    return f"learning_rate_policy.{policy.name.replace('-', '_')}.{number}"
