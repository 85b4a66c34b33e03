"""Policies as they are given on a command line or in a file of facts."""

from __future__ import annotations

from agent.errors import ConfigError
from agent.learning import rates
from agent.learning.presets import PRESETS
from agent.service.validation import check_policy
from memory_store.records import Policy

AUTO_GUARDS = "auto"


def chosen_policy(
    name: str, learning_rate: float, max_steps: int, guards: str = AUTO_GUARDS
) -> Policy:
    """A valid policy.

    Raises:
        ConfigError: the name, or that of the guards, is unknown.
        InvalidFactError: rate or steps are out of range.
    """
    if name not in rates.POLICIES:
        raise ConfigError(f"unknown policy '{name}': use one of {', '.join(rates.POLICIES)}")
    if guards not in (AUTO_GUARDS, *PRESETS):
        raise ConfigError(
            f"unknown guards '{guards}': use one of {', '.join((AUTO_GUARDS, *PRESETS))}"
        )
    policy = Policy(
        name=name,
        learning_rate=learning_rate,
        max_steps=max_steps,
        guards=PRESETS.get(guards),  # auto: by the learner's device, once that is known
    )
    check_policy("policy", policy)
    return policy


def given_policy(
    name: str | None, learning_rate: float | None, max_steps: int | None
) -> Policy | None:
    """The policy of a fact for which some of these were given; None if none was.

    Raises:
        ConfigError: the name is unknown, or `fixed` or `paper` has no rate.
        InvalidFactError: rate or steps are out of range.
    """
    if name is None and learning_rate is None and max_steps is None:
        return None
    name = name or rates.DEFAULT_POLICY.name
    default = rates.DEFAULT_POLICY
    chosen_policy(
        name,
        default.learning_rate if learning_rate is None else learning_rate,
        default.max_steps if max_steps is None else max_steps,
    )
    if name in (rates.FIXED, rates.PAPER) and learning_rate is None:
        raise ConfigError(f"policy '{name}' needs a learning_rate")
    # What was not given is left to the server: zero means its default, or one step.
    return Policy(name=name, learning_rate=learning_rate or 0.0, max_steps=max_steps or 0)
