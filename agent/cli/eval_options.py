"""What the suites that load a model share: their options, the model, progress, errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer
from rich.progress import TaskID

from agent.cli.model_fetch import fetch_if_missing
from agent.cli.output import messages, progress_bar, shown
from agent.errors import AgentError, DiskFullError, ModelFetchError

if TYPE_CHECKING:
    from eval.base_models import BaseModels


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Which model is taught, and on what device."""

    PANEL: ClassVar = None

    model: Annotated[
        str,
        typer.Option(
            help="Teach this model: a known name, a Hub id, or a folder (all suites but probes)."
        ),
    ] = "smollm2-135m"
    device: Annotated[str, typer.Option(help="Run the model on auto, cpu or cuda.")] = "auto"
    threads: Annotated[
        int, typer.Option(min=0, help="Use this many CPU threads; 0 leaves it to torch.")
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
    """What the suites continual, zsre and counterfact teach, and by whom."""

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
            " Only ours and ours-unreviewed follow --policy and the options below it."
        ),
    ] = "ours"


def distinct(names: str) -> tuple[str, ...]:
    """Names that are joined by commas, in order, none twice."""
    return tuple(dict.fromkeys(name.strip() for name in names.split(",")))


@contextmanager
def wrong_usage(option: str | None = None) -> Iterator[None]:
    """Shows our errors as wrong usage, unless disk or network failed.

    Args:
        option: whose value is used inside. None shows errors of requests only, each as the option
            that it names.

    Raises:
        typer.BadParameter: in place of the error.
    """
    from eval.errors import RequestError

    try:
        yield
    except (DiskFullError, ModelFetchError):
        raise
    except AgentError as error:
        if option is None and not isinstance(error, RequestError):
            raise
        hint = f"--{error.field}" if isinstance(error, RequestError) else option
        raise typer.BadParameter(str(error), param_hint=hint) from error


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
