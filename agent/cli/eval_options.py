"""What the suites that load a model share: their options, the model, progress, errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import TaskID

from agent.cli.model_fetch import fetch_if_missing
from agent.cli.output import messages, progress_bar, shown
from agent.cli.policies import AUTO_GUARDS, chosen_policy, complete_guards, complete_policy
from agent.errors import AgentError
from agent.teaching import rates
from agent.teaching.guard_presets import PRESETS
from memory_store.vocabulary import Policy

if TYPE_CHECKING:
    from eval.base_models import BaseModels

OURS = "ours"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Which model is taught, and on what."""

    model: Annotated[
        str,
        typer.Option(
            envvar="AGENT_MODEL",
            help="Teach this model: a known name, a Hub id, or a folder (all suites but probes).",
        ),
    ] = "smollm2-135m"
    device: Annotated[
        str,
        typer.Option(envvar="AGENT_DEVICE", help="Run it on this device: auto, cpu or cuda."),
    ] = "auto"
    threads: Annotated[
        int,
        typer.Option(
            envvar="AGENT_THREADS",
            min=0,
            help="Use this many CPU threads; 0 leaves it to torch.",
        ),
    ] = 0

    def __post_init__(self) -> None:
        """Checks the name of the device.

        Raises:
            typer.BadParameter: it is none of the three.
        """
        if self.device not in ("auto", "cpu", "cuda"):
            raise typer.BadParameter("choose auto, cpu or cuda", param_hint="--device")

    def load(self) -> BaseModels:
        """Fetches the model if it is not on this machine, and loads it."""
        from eval.base_models import BaseModels

        fetch_if_missing(self.model)
        with messages.status(shown(f"loading {self.model}")):
            return BaseModels(self.model, self.device, self.threads or None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TeachingOptions:
    """What the suites continual, zsre and counterfact teach, and how."""

    facts: Annotated[
        int,
        typer.Option(
            min=1,
            help="Teach this many facts: fictional ones (continual), or the first of the file"
            " (zsre, counterfact).",
        ),
    ] = 50
    teachers: Annotated[
        str,
        typer.Option(
            help="Compare these ways of teaching, joined by commas (continual, zsre, counterfact)."
        ),
    ] = OURS
    policy: Annotated[
        str,
        typer.Option(
            envvar="AGENT_POLICY",
            autocompletion=complete_policy,
            help=f"Let the teacher {OURS} choose learning rates by this policy:"
            f" {' or '.join(rates.POLICIES)}.",
        ),
    ] = rates.DEFAULT_POLICY.name
    learning_rate: Annotated[
        float,
        typer.Option(
            envvar="AGENT_LEARNING_RATE", help="Give the policy this rate, or this largest rate."
        ),
    ] = rates.DEFAULT_POLICY.learning_rate
    max_steps: Annotated[
        int,
        typer.Option(envvar="AGENT_MAX_STEPS", help="Let the policy take at most this many steps."),
    ] = rates.DEFAULT_POLICY.max_steps
    guards: Annotated[
        str,
        typer.Option(
            envvar="AGENT_GUARDS",
            autocompletion=complete_guards,
            help=f"Protect what the model knows by these guards: {', '.join(PRESETS)}, or"
            f" {AUTO_GUARDS}, which is full on a GPU and light elsewhere.",
        ),
    ] = AUTO_GUARDS
    without: Annotated[
        str,
        typer.Option(envvar="AGENT_WITHOUT", help="Switch off these guards, joined by commas."),
    ] = ""

    def teacher_names(self) -> tuple[str, ...]:
        """The names in order, none twice."""
        return distinct(self.teachers)

    def chosen_policy(self) -> Policy:
        """The policy of the teachers that follow one.

        Raises:
            typer.BadParameter: a name is unknown, or a number is out of range.
        """
        try:
            return chosen_policy(
                self.policy, self.learning_rate, self.max_steps, self.guards, self.without
            )
        except AgentError as error:
            raise typer.BadParameter(str(error), param_hint="--policy") from error


def distinct(names: str) -> tuple[str, ...]:
    """Names that are joined by commas, in order, none twice."""
    return tuple(dict.fromkeys(name.strip() for name in names.split(",")))


@contextmanager
def wrong_usage() -> Iterator[None]:
    """Shows a field of a request that cannot be used as a wrong option.

    Raises:
        typer.BadParameter: in place of a `RequestError`.
    """
    from eval.errors import RequestError

    try:
        yield
    except RequestError as error:
        raise typer.BadParameter(str(error), param_hint=f"--{error.field}") from error


@contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each kind of work; called with its name, what is done, and how much there is."""
    with progress_bar() as shown_bars:
        started: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in started:
                started[what] = shown_bars.add_task(what, total=total)
            shown_bars.update(started[what], completed=done, visible=done < total)

        yield progress
