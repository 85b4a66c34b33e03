"""`agent eval`: which suite runs, and what the suites share; each has its own in `eval_*.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from agent.cli.connection import Connection
from agent.cli.eval_compare import compare
from agent.cli.eval_continual import ContinualOptions, run_continual_suite
from agent.cli.eval_editing import EditingOptions, run_editing_suite
from agent.cli.eval_options import ModelOptions, TeachingOptions, wrong_usage
from agent.cli.eval_paper import PaperOptions, run_paper_suite
from agent.cli.eval_probes import run_probes
from agent.cli.option_groups import grouped
from agent.cli.options import Json
from agent.cli.output import console, print_json
from agent.cli.policies import PolicyOptions
from agent.errors import ConfigError

# Each suite: what it does, and what it costs.
SUITES = {
    "probes": (
        "asks a server about every fact it holds, and correlated questions",
        "a second for some ten facts",
    ),
    "continual": (
        "teaches a model fictional facts one by one, here, without a server; measures recall,"
        " paraphrase, transfer, leak, forgetting and general damage",
        "with smollm2-135m on two CPU cores up to half a minute a fact, and some minutes each time"
        " it measures: before, after 10, 30, 100, 300, 1000 facts, and in the end",
    ),
    "zsre": (
        "teaches the edits of a zsre file one by one; measures reliability, generalization,"
        " locality, and what is generated freely",
        "as continual",
    ),
    "counterfact": (
        "teaches the edits of a counterfact file one by one; measures ES, PS, NS, and what is"
        " generated freely",
        "as continual",
    ),
    "paper": (
        "replays the four experiments of Curt (2024), with the paper's ten facts and with ten"
        " others, and compares them with the published figures",
        "at --scale smoke some minutes on two CPU cores with tiny; at full scale five million"
        " sampled texts (--protocol paper: thirty million), half an hour on an H100 (paper:"
        " hours); --scale 0.01 costs about a hundredth",
    ),
}

app = typer.Typer()
app.command()(compare)


@app.callback(invoke_without_command=True)
@grouped
def evaluate(
    ctx: typer.Context,
    suite: Annotated[
        str | None,
        typer.Option(
            help=f"Run this suite: {', '.join(SUITES)}.",
            show_default=False,
            autocompletion=lambda incomplete: [s for s in SUITES if s.startswith(incomplete)],
        ),
    ] = None,
    list_suites: Annotated[
        bool, typer.Option("--list", help="Show the suites and what they cost.")
    ] = False,
    seed: Annotated[
        int, typer.Option(help="Draw all that is random from this seed (continual, paper).")
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="Write the results into this folder (all suites but probes). If a run of continual"
            " or paper was interrupted, the same command goes on from there; zsre and counterfact"
            " start over.",
            show_default="none: results are only printed",
        ),
    ] = None,
    *,
    model: ModelOptions,
    teaching: TeachingOptions,
    policy: PolicyOptions,
    continual: ContinualOptions,
    editing: EditingOptions,
    paper: PaperOptions,
    connection: Connection,
    json: Json = False,
) -> None:
    """Measure: what a server remembers (probes), or how well teaching goes (the others)."""
    if ctx.invoked_subcommand is not None:
        return
    if list_suites:
        _list(json)
        return
    if suite is None:
        raise typer.BadParameter(
            f"say which: {', '.join(SUITES)}; --list says more", param_hint="--suite"
        )
    match suite:
        case "probes":
            run_probes(connection, json)
        case "continual" | "zsre" | "counterfact":
            with wrong_usage("--policy"):
                chosen = policy.chosen()
            if suite == "continual":
                run_continual_suite(continual, teaching, chosen, model, seed, out, json)
            else:
                run_editing_suite(suite, editing, teaching, chosen, model, out, json)
        case "paper":
            run_paper_suite(paper, model, seed, out, json)
        case _:
            raise ConfigError(f"unknown suite '{suite}': use one of {', '.join(SUITES)}")


def _list(json: bool) -> None:
    if json:
        print_json(
            {
                "suites": [
                    {"name": name, "does": does, "costs": costs}
                    for name, (does, costs) in SUITES.items()
                ]
            }
        )
        return
    table = Table("suite", "what it does", "what it costs")
    for name, (does, costs) in SUITES.items():
        table.add_row(name, does, costs)
    console.print(table)
