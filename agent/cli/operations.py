"""`agent rollback` and `agent operations`: requests to forget or to roll back."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from rich.table import Table

from agent.cli.connection import Connection
from agent.cli.option_groups import grouped
from agent.cli.options import Json
from agent.cli.output import console, messages, print_json, shown, some_of
from agent.client.client import Client
from agent.client.types import OperationStatus

operations = typer.Typer(
    help="Requests to forget, erase or roll back, and how far they are.", no_args_is_help=True
)


@grouped
def rollback(
    to: Annotated[int, typer.Option(min=0, help="Go back to this version; 0: the base model.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is done.")] = False,
    *,
    connection: Connection,
    json: Json = False,
) -> None:
    """Serve the weights of an earlier version again; later facts become forgotten."""
    with connection.client() as client:
        operation = client.rollback(to)
        if wait:
            operation = wait_shown(client, operation)
    report(operation, [], json)


@operations.command("list")
@grouped
def list_operations(
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many operations.")] = 20,
    *,
    connection: Connection,
    json: Json = False,
) -> None:
    """List operations, newest first."""
    with connection.client() as client:
        found = list(itertools.islice(client.operations(), limit))
    if json:
        print_json({"operations": [operation_json(operation) for operation in found]})
        return
    table = Table("operation", "kind", "of", "state", "facts", "requested")
    for operation in found:
        table.add_row(
            str(operation.id),
            kind_text(operation),
            shown(operation.fact_id or f"version {operation.to_version}"),
            operation.state,
            f"{operation.done_facts} of {operation.total_facts}" if operation.total_facts else "",
            f"{operation.requested_at:%Y-%m-%d %H:%M:%S}" if operation.requested_at else "",
        )
    console.print(table)


OperationId = Annotated[int, typer.Argument(min=1, help="Number of the operation.")]


@operations.command("show")
@grouped
def show_operation(operation: OperationId, *, connection: Connection, json: Json = False) -> None:
    """Show one operation with its progress, or its proof."""
    with connection.client() as client:
        _print(client.operation(operation), json)


@operations.command("cancel")
@grouped
def cancel_operation(operation: OperationId, *, connection: Connection, json: Json = False) -> None:
    """Cancel an operation. What is served stays as it is, and a fact to forget is kept."""
    with connection.client() as client:
        _print(client.cancel_operation(operation), json)


def _print(operation: OperationStatus, json: bool) -> None:
    if json:
        print_json(operation_json(operation))
    else:
        console.print(operation_table(operation))


def kind_text(operation: OperationStatus) -> str:
    """Returns what an operation does, in a word."""
    return "erase" if operation.erase else operation.kind


def wait_shown(client: Client, operation: OperationStatus) -> OperationStatus:
    """Waits for an operation, and shows its progress."""
    with messages.status(operation.kind) as status:
        return client.wait_operation(
            operation.id, lambda what: status.update(shown(f"{operation.kind}: {what}"))
        )


def operation_json(operation: OperationStatus) -> dict[str, Any]:
    """The stable fields of an operation."""
    return {
        "operation": operation.id,
        **some_of(
            operation,
            "kind state fact_id message proof erase to_version done_facts total_facts"
            " requested_at finished_at",
        ),
    }


def operation_table(operation: OperationStatus) -> Table:
    """Makes a table of an operation and its measurements."""
    table = Table(show_header=False, box=None)
    table.add_row(operation.kind, operation.state)
    if operation.total_facts and not operation.over:
        table.add_row("facts", f"{operation.done_facts} of {operation.total_facts} learned again")
    if operation.message:
        table.add_row("reason", shown(operation.message))
    for name, value in proof_lines(operation.proof):
        table.add_row(name, shown(value))
    return table


def operation_text(operation: OperationStatus) -> str:
    """Describes an open operation in one line."""
    subject = operation.fact_id or f"to version {operation.to_version}"
    progress = ""
    if operation.total_facts:
        progress = f", {operation.done_facts} of {operation.total_facts} facts learned again"
    return f"{operation.id}: {kind_text(operation)} {subject}, {operation.state}{progress}"


def proof_lines(proof: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Describes a proof in words; --json has all numbers."""
    steps = {
        "before teaching": proof.get("probability_before_teaching"),
        "taught": proof.get("probability_taught"),
        "where it was never seen": proof.get("probability_on_branch_start"),
        "now": proof.get("probability_after"),
    }
    probabilities = [f"{_probability(p)} {when}" for when, p in steps.items() if p is not None]
    if probabilities:
        yield "its answer's p", ", ".join(probabilities)
    if proof.get("answers_it") is not None:
        yield "the model", "still answers it" if proof["answers_it"] else "does not answer it"
    if "retained" in proof:
        yield (
            "other facts",
            f"{proof['retained']} of {proof['retained_of']} that should be recalled are",
        )
    if "relearned" in proof:
        failed = [
            f", of which {proof[verdict]} {verdict}"
            for verdict in ("resisted", "quarantined")
            if proof.get(verdict)
        ]
        yield "learned again", f"{proof['relearned']} in {proof['seconds']:.1f} s" + "".join(failed)
    for weights in ("weights", "digest_after"):
        if weights in proof:
            yield "weights", str(proof[weights])
    for version, because in (("branch_from", "branch_from_because"), ("served", "served_because")):
        if proof.get(because):
            yield "begins at", f"version {proof[version]}, since {proof[because]}"
    if proof.get("drift"):
        yield "drift", str(proof["drift"])


def _probability(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def report(operation: OperationStatus, out_of_reach: list[str], json: bool) -> None:
    """Prints an operation; exit code 1 if it failed or was cancelled."""
    if json:
        print_json({**operation_json(operation), "out_of_reach": out_of_reach})
    else:
        console.print(operation_table(operation))
        for place in out_of_reach:
            messages.print(shown(f"out of reach, may hold the text: {place}"), style="yellow")
    if operation.state in ("failed", "cancelled"):
        raise typer.Exit(1)
