"""`agent eval --suite paper`: the experiments of the paper, replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import ProgressColumn, Task
from rich.text import Text

from agent.cli.eval_options import ModelOptions, distinct, wrong_usage
from agent.cli.output import console, messages, print_json, progress_bar, shown

if TYPE_CHECKING:
    from agent.models.loading import LoadedModel
    from eval.suites.paper.summary import RunSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperOptions:
    """The options that only this suite has, as they were given."""

    experiments: Annotated[
        str,
        typer.Option(help="Run these of the four experiments, joined by commas (paper)."),
    ] = "1,2,3,4"
    protocol: Annotated[
        str,
        typer.Option(
            help="Follow the author's scripts ('code') or the paper's text ('paper') (paper)."
        ),
    ] = "code"
    scale: Annotated[
        str,
        typer.Option(
            help="Run at 'full' cost, at the least ('smoke'), or at a share from 0 to 1 (paper)."
        ),
    ] = "full"
    fact_sets: Annotated[
        str,
        typer.Option(
            help="Teach the paper's ten facts ('paper'), ten of other words and forms ('held-out'),"
            " or both (paper)."
        ),
    ] = "paper,held-out"
    estimates: Annotated[
        bool,
        typer.Option(
            help="Also estimate rare answers along the sampled paths, not only by counting (paper)."
        ),
    ] = True
    models: Annotated[
        str | None,
        typer.Option(
            help="Run with each of these models, joined by commas, instead of --model (paper).",
            show_default=False,
        ),
    ] = None


def run_paper_suite(
    options: PaperOptions, model: ModelOptions, seed: int, out: Path | None, json: bool
) -> None:
    """Runs what is missing, prints what was found, and writes the report.

    Raises:
        typer.BadParameter: an option is wrong, a model cannot be used, or the folder is of another
            run. Nothing is written then.
    """
    from eval.suites.paper.results import summary_json
    from eval.suites.paper.suite import run_suite
    from eval.suites.paper.summary import Request

    models = distinct(options.models or model.model)
    with wrong_usage():
        request = Request.parse(
            protocol=options.protocol,
            scale=options.scale,
            experiments=options.experiments,
            fact_sets=options.fact_sets,
            seed=seed,
            estimates=options.estimates,
        )
    _require_models(models, model.device)

    def load(name: str) -> LoadedModel:
        with wrong_usage("--model"):
            return replace(model, model=name).load().first

    @contextmanager
    def show(total: int, done: int) -> Iterator[Callable[[str, int], None]]:
        messages.print(shown(request.scale_text), soft_wrap=True)
        with _progress(total, done) as progress:
            yield progress

    with wrong_usage():
        runs = run_suite(request, models, load, show, out)
    if not json:
        for run in runs:
            _print(run)
    elif len(runs) == 1:
        print_json(summary_json(runs[0]))
    else:
        print_json({"suite": "paper", "models": [summary_json(run) for run in runs]})


def _require_models(models: Sequence[str], device: str) -> None:
    """Finds what is wrong before a model is fetched and loaded."""
    from agent.models import catalog
    from agent.models.loading import choose_device

    with wrong_usage("--device"):
        choose_device(device)
    with wrong_usage("--model"):
        for model in models:
            catalog.resolve(model)


class _Speed(ProgressColumn):
    """Samples a second."""

    def render(self, task: Task) -> Text:
        return Text(
            "" if task.speed is None else f"{task.speed:,.0f}/s", style="progress.data.speed"
        )


@contextmanager
def _progress(total: int, done: int) -> Iterator[Callable[[str, int], None]]:
    """One bar over all samples, with their rate and the time left."""
    bars = progress_bar()
    bars.columns = (*bars.columns, _Speed())
    with bars:
        task = bars.add_task("samples", total=total, completed=done)
        yield lambda what, samples: bars.update(task, description=what, advance=samples)


def _print(run: RunSummary) -> None:
    from eval.suites.paper.findings import findings

    request = run.request
    title = f"{run.model}, protocol {request.protocol}, {request.scale_text}"
    for line in (title, *run.notes):
        console.print(shown(line), soft_wrap=True)
    for number, sentences in findings(run).items():
        console.print(f"Experiment {number}", style="bold")
        for sentence in sentences:
            console.print(shown(sentence), soft_wrap=True)
