"""`agent eval`: the options of all suites; what each suite does is told in `eval_*.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from agent.cli.connection import Connection
from agent.cli.eval_compare import compare
from agent.cli.eval_continual import ALL_TEXTS, OURS, ContinualOptions, run_continual_suite
from agent.cli.eval_editing import run_editing_suite
from agent.cli.eval_paper import PaperOptions, run_paper_suite
from agent.cli.eval_probes import run_probes
from agent.cli.option_groups import grouped
from agent.cli.options import Json
from agent.cli.output import console, print_json
from agent.cli.policies import AUTO_GUARDS, chosen_policy, complete_guards, complete_policy
from agent.errors import AgentError, ConfigError
from agent.teaching import rates
from agent.teaching.guard_presets import PRESETS
from memory_store.vocabulary import Policy

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
}
for _name, _metrics in (
    ("zsre", "reliability, generalization, locality"),
    ("counterfact", "ES, PS, NS"),
):
    SUITES[_name] = (
        f"teaches the edits of a {_name} file one by one; measures {_metrics}, and what is"
        " generated freely",
        "as continual",
    )
SUITES["paper"] = (
    "replays the four experiments of Curt (2024), with the paper's ten facts and with ten others,"
    " beside the published figures",
    "at --scale smoke some minutes on two CPU cores with tiny; at full scale five million sampled"
    " texts (--protocol paper: thirty million), half an hour on an H100 (paper: hours);"
    " --scale 0.01 costs about a hundredth",
)
FULL = "full"
EVAL_MODEL = "smollm2-135m"

app = typer.Typer()
app.command()(compare)


@app.callback(invoke_without_command=True)
@grouped
def evaluate(
    ctx: typer.Context,
    suite: Annotated[
        str | None,
        typer.Option(
            help=f"Which suite: {', '.join(SUITES)}.",
            show_default=False,
            autocompletion=lambda incomplete: [s for s in SUITES if s.startswith(incomplete)],
        ),
    ] = None,
    list_suites: Annotated[
        bool, typer.Option("--list", help="Show the suites and what they cost.")
    ] = False,
    facts: Annotated[int, typer.Option(min=1, help="continual: how many facts are taught.")] = 50,
    controls: Annotated[
        int, typer.Option(min=0, help="continual: how many untaught questions watch for leaks.")
    ] = 140,
    seed: Annotated[int, typer.Option(help="continual, paper: of all that is random.")] = 0,
    model: Annotated[
        str,
        typer.Option(envvar="AGENT_MODEL", help="All but probes: a name, a Hub id, or a folder."),
    ] = EVAL_MODEL,
    device: Annotated[
        str, typer.Option(envvar="AGENT_DEVICE", help="All but probes: auto, cpu or cuda.")
    ] = "auto",
    threads: Annotated[
        int,
        typer.Option(
            envvar="AGENT_THREADS", min=0, help="All but probes: CPU threads; 0: torch decides."
        ),
    ] = 0,
    policy: Annotated[
        str,
        typer.Option(
            envvar="AGENT_POLICY",
            autocompletion=complete_policy,
            help=f"continual, teacher {OURS}: {' or '.join(rates.POLICIES)}.",
        ),
    ] = rates.DEFAULT_POLICY.name,
    learning_rate: Annotated[
        float,
        typer.Option(envvar="AGENT_LEARNING_RATE", help=f"continual, teacher {OURS}: its rate."),
    ] = rates.DEFAULT_POLICY.learning_rate,
    max_steps: Annotated[
        int,
        typer.Option(
            envvar="AGENT_MAX_STEPS", help=f"continual, teacher {OURS}: its limit of steps."
        ),
    ] = rates.DEFAULT_POLICY.max_steps,
    guards: Annotated[
        str,
        typer.Option(
            envvar="AGENT_GUARDS",
            autocompletion=complete_guards,
            help=f"continual, teacher {OURS}: {', '.join(PRESETS)}; auto: full on a GPU, else"
            " light.",
        ),
    ] = AUTO_GUARDS,
    without: Annotated[
        str,
        typer.Option(
            envvar="AGENT_WITHOUT",
            help=f"continual, teacher {OURS}: guards to switch off, joined by commas.",
        ),
    ] = "",
    teachers: Annotated[
        str, typer.Option(help="continual: ways of teaching to compare, joined by commas.")
    ] = OURS,
    out: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="All but probes: folder for results. An interrupted run goes on from it.",
            show_default="none: results are only printed",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            envvar="AGENT_EVAL_DATA",
            exists=True,
            file_okay=False,
            help="continual: folder of the texts that general damage is measured on.",
            show_default="none: general damage is left out",
        ),
    ] = None,
    edits: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="zsre, counterfact: file of edits, JSON lines; --facts says how many are taught.",
            show_default=False,
        ),
    ] = None,
    general: Annotated[
        str | None,
        typer.Option(
            help=f"continual: how many of these texts of each kind, or '{FULL}'.",
            show_default="100 windows of WikiText, 300 sentences, 300 passages of LAMBADA",
        ),
    ] = None,
    *,
    paper: PaperOptions,
    connection: Connection,
    json: Json = False,
) -> None:
    """Measure: what a server remembers (probes), or how well teaching goes (the others)."""
    if ctx.invoked_subcommand is not None:
        return
    if list_suites:
        _list(json)
    elif suite is None:
        raise typer.BadParameter(
            f"say which: {', '.join(SUITES)}; --list tells more", param_hint="--suite"
        )
    elif suite == "probes":
        run_probes(connection, json)
    elif suite == "paper":
        names = paper.models or model
        run_paper_suite(
            paper,
            models=tuple(dict.fromkeys(name.strip() for name in names.split(","))),
            seed=seed,
            device=_device(device),
            threads=threads or None,
            out=out,
            json=json,
        )
    elif suite in SUITES:
        options = ContinualOptions(
            facts=facts,
            controls=controls,
            seed=seed,
            model=model,
            device=_device(device),
            threads=threads or None,
            policy=_policy(policy, learning_rate, max_steps, guards, without),
            teachers=_teachers(teachers),
            out=out,
            data=data,
            general=_general(general),
            json=json,
        )
        if suite == "continual":
            run_continual_suite(options)
        else:
            run_editing_suite(suite, edits, options)
    else:
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


def _device(device: str) -> str:
    if device not in ("auto", "cpu", "cuda"):
        raise typer.BadParameter("choose auto, cpu or cuda", param_hint="--device")
    return device


def _policy(name: str, learning_rate: float, max_steps: int, guards: str, without: str) -> Policy:
    try:
        return chosen_policy(name, learning_rate, max_steps, guards, without)
    except AgentError as error:
        raise typer.BadParameter(str(error), param_hint="--policy") from error


def _teachers(names: str) -> tuple[str, ...]:
    """The names in order, none twice."""
    return tuple(dict.fromkeys(name.strip() for name in names.split(",")))


def _general(texts: str | None) -> int | None:
    if texts is None:
        return None
    if texts == FULL:
        return ALL_TEXTS
    if not texts.isdecimal() or not int(texts):
        raise typer.BadParameter(f"give a number from 1 on, or '{FULL}'", param_hint="--general")
    return int(texts)
