"""Policies as they are given on a command line or in a file of facts."""

from __future__ import annotations

from agent.errors import ConfigError
from agent.learning import rates
from agent.service.validation import check_policy
from memory_store.records import Policy


def chosen_policy(name: str, learning_rate: float, max_steps: int) -> Policy:
    """A valid policy.

    Raises:
        ConfigError: the name is unknown.
        InvalidFactError: rate or steps are out of range.
    """
    if name not in rates.POLICIES:
        raise ConfigError(f"unknown policy '{name}': use one of {', '.join(rates.POLICIES)}")
    policy = Policy(name=name, learning_rate=learning_rate, max_steps=max_steps)
    check_policy("policy", policy)
    return policy


def given_policy(
    name: str | None, learning_rate: float | None, max_steps: int | None
) -> Policy | None:
    """The policy of a fact for which some of these were given; None if none was.

    Raises:
        ConfigError: the name is unknown, or `fixed` has no rate.
        InvalidFactError: rate or steps are out of range.
    """
    if name is None and learning_rate is None and max_steps is None:
        return None
    name = name or rates.UNTIL_KNOWN
    default = rates.DEFAULT_POLICY
    chosen_policy(
        name,
        default.learning_rate if learning_rate is None else learning_rate,
        default.max_steps if max_steps is None else max_steps,
    )
    if name == rates.FIXED and learning_rate is None:
        raise ConfigError("policy 'fixed' needs a learning_rate")
    # What was not given is left to the server: zero means its default, or one step for `fixed`.
    return Policy(name=name, learning_rate=learning_rate or 0.0, max_steps=max_steps or 0)
