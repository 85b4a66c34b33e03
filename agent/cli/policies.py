"""Policies on a command line or in a file of facts."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Annotated, ClassVar

import typer

from agent.errors import ConfigError, InvalidFactError
from agent.teaching import rates
from agent.teaching.guard_presets import PRESETS
from memory_store.vocabulary import Guards, Policy

AUTO_GUARDS = "auto"
EXACT_PROBES = "exact"
PAPER_PROBES = "paper"
PAPER_SAMPLES = 80
MAX_SAMPLES = 100_000


POLICY_HELP = (
    "search: the smallest of 16 rates that teaches the fact; predicted: the same, but only a few"
    " rates are tried; until-known: one rate, until the fact is known; fixed: N steps at one rate;"
    " paper: one step on the paper's text"
)


def complete_policy(incomplete: str) -> list[str]:
    """For the shell."""
    return [name for name in rates.POLICIES if name.startswith(incomplete)]


def complete_guards(incomplete: str) -> list[str]:
    """For the shell."""
    return [name for name in (AUTO_GUARDS, *PRESETS) if name.startswith(incomplete)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyOptions:
    """How facts are learned. See docs/how-to/choose-a-policy.md."""

    PANEL: ClassVar = "Learning"

    policy: Annotated[
        str,
        typer.Option(
            autocompletion=complete_policy,
            help=f"Learn by this policy, unless a fact names another. {POLICY_HELP}.",
        ),
    ] = rates.DEFAULT_POLICY.name
    learning_rate: Annotated[
        float,
        typer.Option(
            help="Learn at this rate, 1e-8 to 1e-1. For search and predicted it is the largest"
            " rate that is tried."
        ),
    ] = rates.DEFAULT_POLICY.learning_rate
    max_steps: Annotated[
        int, typer.Option(help="Take at most this many steps for one fact, 1 to 1000.")
    ] = rates.DEFAULT_POLICY.max_steps
    guards: Annotated[
        str,
        typer.Option(
            autocompletion=complete_guards,
            help="Guard the rest of the model against harm from an update with one of the sets"
            f" {', '.join(PRESETS)}. With {AUTO_GUARDS} it is full on a GPU and light on a CPU.",
        ),
    ] = AUTO_GUARDS
    without: Annotated[
        str,
        typer.Option(
            help="Switch off some guards of the set: rehearsed, neighbours, controls or texts,"
            " separated by commas."
        ),
    ] = ""

    def chosen(self) -> Policy:
        """The policy for facts that name none.

        Raises:
            ConfigError: a name is unknown.
            InvalidFactError: rate or steps are out of range.
        """
        return chosen_policy(
            self.policy, self.learning_rate, self.max_steps, self.guards, self.without
        )


def chosen_policy(
    name: str, learning_rate: float, max_steps: int, guards: str = AUTO_GUARDS, without: str = ""
) -> Policy:
    """Makes a valid policy.

    Args:
        name: of the policy.
        learning_rate: see `Policy`.
        max_steps: see `Policy`.
        guards: name of a preset, or `AUTO_GUARDS`.
        without: names of guards of the preset to switch off, separated by commas.

    Raises:
        ConfigError: a name is unknown.
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
        guards=_chosen_guards(guards, without),
    )
    _check(policy)
    return policy


def chosen_samples(probes: str) -> int:
    """Returns how many texts to sample for each question after an update.

    Args:
        probes: `exact` for none, `paper` for the number of the paper's scripts, or `paper:SAMPLES`.

    Raises:
        ConfigError: it is none of these.
    """
    name, _, number = probes.partition(":")
    if name == EXACT_PROBES and not number:
        return 0
    if name != PAPER_PROBES or (":" in probes and not number.isdecimal()):
        raise ConfigError(
            f"unknown probes '{probes}': use {EXACT_PROBES}, {PAPER_PROBES} or"
            f" {PAPER_PROBES}:SAMPLES"
        )
    samples = int(number) if number else PAPER_SAMPLES
    if not 1 <= samples <= MAX_SAMPLES:
        raise ConfigError(f"{samples} samples: choose 1 to {MAX_SAMPLES}")
    return samples


def _check(policy: Policy) -> None:
    """Checks rate and steps.

    Raises:
        InvalidFactError: one is out of range.
    """
    # Written so that NaN fails too.
    if not rates.MIN_LEARNING_RATE <= policy.learning_rate <= rates.MAX_LEARNING_RATE:
        raise InvalidFactError(
            f"policy.{'largest_' if policy.name in rates.COMPARING else ''}learning_rate",
            f"{policy.learning_rate:g} is out of range:"
            f" {rates.MIN_LEARNING_RATE:g} to {rates.MAX_LEARNING_RATE:g}",
        )
    if not 1 <= policy.max_steps <= rates.MAX_STEPS:
        raise InvalidFactError(
            f"policy.{'steps' if policy.name in (rates.FIXED, rates.PAPER) else 'max_steps'}",
            f"{policy.max_steps} is out of range: 1 to {rates.MAX_STEPS}",
        )


def _chosen_guards(preset: str, without: str) -> Guards | None:
    """Returns None for auto: then the learner's device decides."""
    names = [field.name for field in fields(Guards)]
    off = [name.strip() for name in without.split(",") if name.strip()]
    for name in off:
        if name not in names:
            raise ConfigError(f"unknown guard '{name}': use some of {', '.join(names)}")
    if off and preset == AUTO_GUARDS:
        raise ConfigError(f"say which guards to begin with: one of {', '.join(PRESETS)}")
    chosen = PRESETS.get(preset)
    return replace(chosen, **dict.fromkeys(off, 0)) if chosen else None


def given_policy(
    name: str | None, learning_rate: float | None, max_steps: int | None
) -> Policy | None:
    """Makes the policy of a fact from what was given; None if nothing was.

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
    # Zero leaves a value to the server: its default, or one step.
    return Policy(name=name, learning_rate=learning_rate or 0.0, max_steps=max_steps or 0)
