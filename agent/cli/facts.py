"""`agent facts list` and `agent facts show`."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from agent.cli.connection import Connection
from agent.cli.curve import curve_lines
from agent.cli.fact_history import own_probes, remembered_lines, touching
from agent.cli.operations import operation_json, operation_table, report, wait_shown
from agent.cli.option_groups import grouped
from agent.cli.options import Json
from agent.cli.output import console, fact_json, messages, print_json, shown, some_of, state_text
from agent.cli.teach import facts_table
from agent.cli.why import influence_table
from agent.monitor.screen import glyphs_of
from agent.wire.error_details import RequestError
from memory_store.vocabulary import HELD, Fact, FactState, Probe, Update

# Labels of the second answer of an attempt without an update, or with one that was undone.
AFTER = {
    FactState.KNOWN: "not taught: known",
    FactState.RESISTED: "put back after it",
    FactState.FORGOTTEN: "once taught (undone)",
}

# What --json shows of the records.
UPDATE_FIELDS = "model_version steps digest_before digest_after algorithm seconds"
PROBE_FIELDS = "kind question answer correct log_probability samples correct_samples model_version"

app = typer.Typer(help="List, show and forget the facts of a server.", no_args_is_help=True)


@app.command("list")
@grouped
def list_facts(
    state: Annotated[
        list[FactState] | None, typer.Option(help="List only facts in this state. Repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="List at most this many facts; 0: all.")] = 0,
    *,
    connection: Connection,
    json: Json = False,
) -> None:
    """List facts in the order they were accepted."""
    with connection.client() as client, messages.status("reading"):
        facts = list(itertools.islice(client.facts(state or ()), limit or None))
    if json:
        print_json({"facts": [fact_json(fact) for fact in facts]})
    else:
        console.print(facts_table(facts))


@app.command()
@grouped
def forget(
    fact_id: Annotated[str, typer.Argument(help="Id of the fact.")],
    erase: Annotated[
        bool,
        typer.Option(
            "--erase",
            help="Remove the text too, from database and snapshots, and delete known backups.",
        ),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it is done, and show the proof.")
    ] = False,
    *,
    connection: Connection,
    json: Json = False,
) -> None:
    """Forget a fact exactly: the weights become those of a model that never saw it."""
    with connection.client() as client:
        operation, out_of_reach = client.forget(fact_id, erase=erase)
        if wait:
            operation = wait_shown(client, operation)
    report(operation, out_of_reach, json)


@app.command()
@grouped
def retry(
    fact_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Ids of quarantined or resisted facts."),
    ] = None,
    all_quarantined: Annotated[
        bool, typer.Option("--all-quarantined", help="Queue every quarantined fact again.")
    ] = False,
    *,
    connection: Connection,
    json: Json = False,
) -> None:
    """Queue facts again that could not be learned. They are learned after all others."""
    if bool(fact_ids) == all_quarantined:
        raise typer.BadParameter("name the facts to be queued again, or give --all-quarantined")
    queued: list[str] = []
    refused: dict[str, str] = {}
    with connection.client() as client:
        if all_quarantined:
            fact_ids = [fact.id for fact in client.facts([FactState.QUARANTINED])]
        for fact_id in fact_ids or ():
            try:
                queued.append(client.retry_fact(fact_id).id)
            except RequestError as error:
                if error.reason not in ("NOT_FOUND", "WRONG_STATE"):
                    raise
                refused[fact_id] = str(error)
    if json:
        print_json({"queued": queued, "refused": refused})
    else:
        console.print(f"queued again: {len(queued)}")
        for fact_id, reason in refused.items():
            messages.print(shown(f"{fact_id}: {reason}"))
    if refused:
        raise typer.Exit(1)


@app.command()
@grouped
def show(
    fact_id: Annotated[str, typer.Argument(help="Id of the fact.")],
    *,
    connection: Connection,
    json: Json = False,
) -> None:
    """Show one fact: its updates, and how well it is retained."""
    with connection.client() as client:
        fact, updates, probes = client.history(fact_id)
        forgetting = client.forgetting(fact_id)
        influences = touching(client, fact)
    own = own_probes(probes)
    if json:
        print_json(
            {
                **fact_json(fact),
                **some_of(fact, "correlated_questions superseded_by"),
                "rate_curve": fact.learning.curve if fact.learning else (),
                "updates": [some_of(update, UPDATE_FIELDS) for update in updates],
                "probes": [some_of(probe, PROBE_FIELDS) for probe in probes],
                "retention": [_point_json(probe) for probe in own],
                "touched_by": influences,
                "forgetting": operation_json(forgetting) if forgetting else None,
            }
        )
        return
    table = Table(show_header=False, box=None)
    table.add_row("question", shown(fact.question))
    table.add_row("answer", shown(fact.answer))
    table.add_row("state", state_text(fact.state))
    if fact.reason:
        table.add_row("reason", shown(fact.reason))
    if fact.learning:
        table.add_row("before it was taught", shown(fact.learning.answer_before))
        table.add_row(AFTER.get(fact.state, "once taught"), shown(fact.learning.answer_after))
    console.print(table)
    if forgetting:
        console.print(operation_table(forgetting))
    if lines := _rate_curve(fact):
        console.print(Text("\n".join(lines), no_wrap=True))
    if lines := remembered_lines(own, min(console.width, 80), glyphs_of(console)):
        console.print(Text("\n".join(lines), no_wrap=True))
    if updates:
        console.print(_steps_table(updates, in_effect=fact.state in (*HELD, FactState.SUPERSEDED)))
    if influences:
        console.print(influence_table(influences, "Updates that touched it"))
    if probes:
        console.print(_probes_table(probes))


def _rate_curve(fact: Fact) -> list[str]:
    if fact.learning is None:
        return []
    rates = fact.learning.learning_rates
    return curve_lines(fact.learning.curve, rates[0] if rates else None, min(console.width, 80))


def _steps_table(updates: list[Update], *, in_effect: bool) -> Table:
    title = "Updates" if in_effect else "Updates (undone: the weights do not hold them)"
    table = Table("version", "step", "rate", "loss", "p after", "rehearsed", title=title)
    for update in updates:
        for number, step in enumerate(update.steps, start=1):
            table.add_row(
                str(update.model_version),
                str(number),
                f"{step.learning_rate:.3g}",
                f"{step.loss:.3f}",
                f"{step.probability:.3f}",
                str(len(step.rehearsed_fact_ids)),
            )
    return table


def _probes_table(probes: list[Probe]) -> Table:
    table = Table("version", "probe", "question", "answer", "right", "p", title="Probes")
    sampled = any(probe.samples for probe in probes)
    if sampled:
        table.add_column("sampled")
    for probe in probes:
        table.add_row(
            str(probe.model_version),
            probe.kind.value,
            shown(probe.question),
            shown(probe.answer),
            "yes" if probe.correct else "no",
            f"{math.exp(probe.log_probability):.3f}",
            *([f"{probe.correct_samples}/{probe.samples}"] if sampled and probe.samples else []),
        )
    return table


def _point_json(probe: Probe) -> dict[str, Any]:
    return {
        "model_version": probe.model_version,
        "probability": math.exp(probe.log_probability),
        "probed_at": probe.probed_at,
    }
