"""The options of `agent serve` for what clients may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import typer

from agent.errors import ConfigError
from agent.teaching import rates
from agent.teaching.limits import SAFE_LEARNING_RATE, SAFE_STEPS, TeachingLimits
from memory_store.vocabulary import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitOptions:
    """See docs/how-to/choose-a-policy.md."""

    PANEL: ClassVar = "Limits"

    allow_policies: Annotated[
        str, typer.Option(help="Accept only facts with one of these policies, separated by commas.")
    ] = ",".join(rates.POLICIES)
    largest_learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Refuse facts that ask for a larger learning rate.",
            show_default=f"{SAFE_LEARNING_RATE:g}, or --learning-rate if that is larger",
        ),
    ] = None
    most_steps: Annotated[
        int | None,
        typer.Option(
            help="Refuse facts that ask for more steps.",
            show_default=f"{SAFE_STEPS}, or --max-steps if that is more",
        ),
    ] = None
    allow_ungated: Annotated[
        bool,
        typer.Option(
            "--allow-ungated",
            help="Serve also updates that no guard has checked for harm: those of fixed and"
            " paper, and those whose guards are switched off.",
        ),
    ] = False

    def chosen(self, policy: Policy) -> TeachingLimits:
        """Returns the limits.

        Args:
            policy: the server's own, for facts that name none.

        Raises:
            ConfigError: a value is out of range, or the server's own policy is not allowed.
        """
        names = tuple(name.strip() for name in self.allow_policies.split(",") if name.strip())
        for name in names:
            if name not in rates.POLICIES:
                raise ConfigError(
                    f"--allow-policies: unknown policy '{name}': use some of"
                    f" {', '.join(rates.POLICIES)}"
                )
        largest = self.largest_learning_rate
        if largest is None:
            largest = max(SAFE_LEARNING_RATE, policy.learning_rate)
        # Written so that NaN fails too.
        if not rates.MIN_LEARNING_RATE <= largest <= rates.MAX_LEARNING_RATE:
            raise ConfigError(
                f"--largest-learning-rate {largest:g} is out of range:"
                f" {rates.MIN_LEARNING_RATE:g} to {rates.MAX_LEARNING_RATE:g}"
            )
        most = max(SAFE_STEPS, policy.max_steps) if self.most_steps is None else self.most_steps
        if not 1 <= most <= rates.MAX_STEPS:
            raise ConfigError(f"--most-steps {most} is out of range: 1 to {rates.MAX_STEPS}")
        _require_own(policy, names, largest, most)
        return TeachingLimits(
            policies=names,
            largest_learning_rate=largest,
            most_steps=most,
            gated=not self.allow_ungated,
        )


def _require_own(policy: Policy, names: tuple[str, ...], largest: float, most: int) -> None:
    """Checks that the server's own policy is within its own limits.

    Raises:
        ConfigError: it is not.
    """
    if policy.name not in names:
        raise ConfigError(f"--policy {policy.name} is not among --allow-policies")
    if policy.learning_rate > largest:
        raise ConfigError(
            f"--learning-rate {policy.learning_rate:g} is more than --largest-learning-rate"
            f" {largest:g}"
        )
    if policy.max_steps > most:
        raise ConfigError(f"--max-steps {policy.max_steps} is more than --most-steps {most}")
