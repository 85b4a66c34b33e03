"""`agent eval --suite continual`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from agent.cli.eval_options import ModelOptions, TeachingOptions, bars, distinct, wrong_usage
from agent.cli.output import console, messages, print_json
from memory_store.vocabulary import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinualOptions:
    """The options that only this suite has."""

    controls: Annotated[
        int,
        typer.Option(
            min=0,
            help="Watch for leaks with this many questions that are never taught (continual).",
        ),
    ] = 140
    data: Annotated[
        Path | None,
        typer.Option(
            envvar="AGENT_EVAL_DATA",
            exists=True,
            file_okay=False,
            help="Measure general damage on the texts in this folder (continual).",
            show_default="none: general damage is left out",
        ),
    ] = None
    general: Annotated[
        str | None,
        typer.Option(
            help="Take this many of these texts of each kind, or 'full' for all (continual).",
            show_default="100 windows of WikiText, 300 sentences, 300 passages of LAMBADA",
        ),
    ] = None


def run_continual_suite(
    options: ContinualOptions,
    teaching: TeachingOptions,
    policy: Policy,
    model: ModelOptions,
    seed: int,
    out: Path | None,
    json: bool,
) -> None:
    """Teaches, measures, prints, and writes the results.

    Raises:
        typer.BadParameter: a teacher is unknown, texts are missing, or the folder is of a run
            with other settings.
    """
    from eval.suites.continual.general_texts import FILES
    from eval.suites.continual.results import short_json
    from eval.suites.continual.suite import ContinualRequest, run_suite
    from eval.suites.continual.tables import comparison, course, retention

    request = ContinualRequest(
        facts=teaching.facts,
        controls=options.controls,
        seed=seed,
        teachers=distinct(teaching.teachers),
        policy=policy,
        data=options.data,
        general=options.general,
    )
    with wrong_usage():
        request.check(out)
    if request.data is None:
        messages.print(
            f"General damage is left out: give a folder with {', '.join(FILES)} by --data or"
            " AGENT_EVAL_DATA (docs/how-to/evaluate.md says where to get them).",
            soft_wrap=True,
        )
    models = model.load()
    with wrong_usage(), bars() as progress:
        results = run_suite(request, models, progress, out)
    if json:
        print_json(short_json({**results.settings, **results.provenance}, results.summaries))
        return
    tables = [comparison(results.summaries)]
    for summary in results.summaries:
        tables += [course(summary), retention(summary)]
    for table in tables:
        drawn = Table(title=table.title)
        for name in table.header:
            drawn.add_column(name, overflow="fold")  # many teachers: narrow, but nothing cut off
        for row in table.rows:
            drawn.add_row(*row)
        console.print(drawn)
