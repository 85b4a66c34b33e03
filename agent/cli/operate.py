"""`agent rollback | why | export | backup`, `agent operations` and `agent snapshots`."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from agent.cli.connection import Connection
from agent.cli.option_groups import grouped
from agent.cli.options import Json
from agent.cli.output import console, messages, print_json, shown
from agent.client.client import Client
from agent.client.types import Influence, OperationStatus
from agent.config import DATABASE, DEFAULT_KEEP_EVENTS
from agent.errors import ConfigError

snapshots = typer.Typer(help="Snapshots of the weights of a server.", no_args_is_help=True)
operations = typer.Typer(
    help="Requests to forget, erase or roll back, and how far they are.", no_args_is_help=True
)


@grouped
def rollback(
    to: Annotated[int, typer.Option(min=0, help="Version to go back to; 0: the base model.")],
    wait: Annotated[bool, typer.Option("--wait", help="Until it is done.")] = False,
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
        found = client.operation(operation)
    if json:
        print_json(operation_json(found))
    else:
        console.print(operation_table(found))


@operations.command("cancel")
@grouped
def cancel_operation(operation: OperationId, *, connection: Connection, json: Json = False) -> None:
    """Give an operation up. What is served stays as it is, and a fact to be forgotten is kept."""
    with connection.client() as client:
        found = client.cancel_operation(operation)
    if json:
        print_json(operation_json(found))
    else:
        console.print(operation_table(found))


def kind_text(operation: OperationStatus) -> str:
    """What an operation does, in a word."""
    return "erase" if operation.erase else operation.kind


@grouped
def pause(*, connection: Connection, json: Json = False) -> None:
    """Stop learning, restarts included, until 'agent resume'. Facts are still accepted."""
    _pause(connection, json, paused=True)


@grouped
def resume(*, connection: Connection, json: Json = False) -> None:
    """Go on learning after 'agent pause'."""
    _pause(connection, json, paused=False)


def _pause(connection: Connection, json: bool, *, paused: bool) -> None:
    with connection.client() as client:
        client.pause_learning(paused=paused)
    if json:
        print_json({"learning_paused": paused})
    else:
        messages.print(f"learning is {'paused' if paused else 'on'}")


@grouped
def compact(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Compact the memory in this folder instead, which no server may use meanwhile.",
            show_default=False,
        ),
    ] = None,
    keep_events: Annotated[
        int, typer.Option(min=1000, help="With --data: as of 'agent serve'.")
    ] = DEFAULT_KEEP_EVENTS,
    *,
    connection: Connection,
    json: Json = False,
) -> None:
    """Remove old probes and events that are no longer kept, and give disk space back."""
    if data is None:
        with connection.client() as client, messages.status("compacting"):
            done = client.compact()
    else:
        from agent.data_folder import held  # imports a lock, and the store
        from memory_store.compacting import compact_file

        if not (data / DATABASE).is_file():
            raise ConfigError(f"{data} holds no memory: name the folder of one")
        with held(data), messages.status("compacting"):
            done = compact_file(data / DATABASE, keep_events)
    if json:
        print_json(dataclasses.asdict(done))
        return
    messages.print(
        f"{done.bytes_after / 1e6:.1f} MB, before {done.bytes_before / 1e6:.1f} MB; removed"
        f" {done.removed_probes} probes and {done.removed_events} events"
    )
    if done.reclaimable_bytes:
        messages.print(
            f"{done.reclaimable_bytes / 1e6:.1f} MB of it are free: stop the server, and run"
            " 'agent compact --data FOLDER' to give them back"
        )


@grouped
def why(
    question: Annotated[str, typer.Argument(help="The question of a fact.")],
    limit: Annotated[int, typer.Option(min=1, help="At most this many updates.")] = 10,
    *,
    connection: Connection,
    json: Json = False,
) -> None:
    """Tell which updates moved the answer's probability most, from the recorded probes."""
    with connection.client() as client:
        result = client.explain(question, limit)
    if json:
        print_json(dataclasses.asdict(result))
        return
    console.print(influence_table(result.influences))


# What an update did, by the ledger's word for it.
UPDATES = {
    "teach": "taught",
    "relearn": "learned again",
    "forget": "forgotten",
    "rollback": "rolled back",
    "drift": "drifted",
}


def influence_table(influences: Iterable[Influence], title: str | None = None) -> Table:
    """What updates did to the probability of an answer."""
    table = Table("version", "update", "of", "p before", "p after", title=title)
    for influence in influences:
        table.add_row(
            str(influence.model_version),
            UPDATES.get(influence.kind, shown(influence.kind)),
            shown(influence.cause_question or influence.cause_fact_id),
            f"{influence.probability_before:.4f}",
            f"{influence.probability_after:.4f}",
        )
    return table


@grouped
def export(
    folder: Annotated[Path, typer.Argument(help="New folder, on the server's machine.")],
    *,
    connection: Connection,
    json: Json = False,
) -> None:
    """Write a plain Hugging Face checkpoint with what was learned."""
    with connection.client() as client, messages.status("writing"):
        version = client.export(str(folder.absolute()))
    _tell_written(folder, version, json)


@grouped
def backup(
    folder: Annotated[Path, typer.Argument(help="New folder, on the server's machine.")],
    *,
    connection: Connection,
    json: Json = False,
) -> None:
    """Copy database and snapshots while the server runs. The copy is a data folder for --data."""
    with connection.client() as client, messages.status("copying"):
        version = client.backup(str(folder.absolute()))
    _tell_written(folder, version, json)


def _tell_written(folder: Path, version: int, json: bool) -> None:
    if json:
        print_json({"folder": str(folder.absolute()), "model_version": version})
    else:
        messages.print(shown(f"{folder} holds model version {version}"))


@snapshots.command("list")
@grouped
def list_snapshots(*, connection: Connection, json: Json = False) -> None:
    """List snapshots, newest first."""
    with connection.client() as client:
        listed = client.snapshots()
    if json:
        print_json({"snapshots": [dataclasses.asdict(snapshot) for snapshot in listed]})
        return
    table = Table("version", "made", "size", "digest")
    for snapshot in listed:
        table.add_row(
            str(snapshot.model_version),
            shown(snapshot.created_at[:19]),
            f"{snapshot.size_bytes / 1e6:.1f} MB",
            shown(snapshot.digest[:12]),
        )
    console.print(table)


@snapshots.command()
@grouped
def create(*, connection: Connection, json: Json = False) -> None:
    """Write a snapshot of what is served now; learning goes on."""
    with connection.client() as client, messages.status("writing"):
        snapshot = client.create_snapshot()
    if json:
        print_json(dataclasses.asdict(snapshot))
    else:
        messages.print(f"snapshot of version {snapshot.model_version}")


@snapshots.command()
@grouped
def verify(*, connection: Connection, json: Json = False) -> None:
    """Read every byte of every snapshot; exit code 1 if one is damaged."""
    with connection.client() as client, messages.status("reading"):
        verdicts = client.verify_snapshots()
    if json:
        print_json({"snapshots": [{"model_version": v, "error": e} for v, e in verdicts.items()]})
    else:
        for version, error in verdicts.items():
            console.print(f"{version}: ", shown(error or "good"), sep="")
    if any(verdicts.values()):
        raise typer.Exit(1)


@snapshots.command()
@grouped
def prune(*, connection: Connection, json: Json = False) -> None:
    """Remove snapshots that the rule does not keep (the last ones, and one a day)."""
    with connection.client() as client:
        removed = client.prune_snapshots()
    if json:
        print_json({"removed_versions": removed})
    else:
        messages.print(f"removed {len(removed)} snapshots")


def wait_shown(client: Client, operation: OperationStatus) -> OperationStatus:
    """Waits for an operation and shows what it is doing."""
    with messages.status(operation.kind) as status:
        return client.wait_operation(
            operation.id, lambda what: status.update(shown(f"{operation.kind}: {what}"))
        )


def operation_json(operation: OperationStatus) -> dict[str, Any]:
    """The stable fields of an operation."""
    return {
        "operation": operation.id,
        "kind": operation.kind,
        "state": operation.state,
        "fact_id": operation.fact_id,
        "message": operation.message,
        "proof": operation.proof,
        "erase": operation.erase,
        "to_version": operation.to_version,
        "done_facts": operation.done_facts,
        "total_facts": operation.total_facts,
        "requested_at": operation.requested_at and operation.requested_at.isoformat(),
        "finished_at": operation.finished_at and operation.finished_at.isoformat(),
    }


def operation_table(operation: OperationStatus) -> Table:
    """An operation with what was measured."""
    table = Table(show_header=False, box=None)
    table.add_row(operation.kind, operation.state)
    if operation.total_facts and not operation.over:
        table.add_row("facts", f"{operation.done_facts} of {operation.total_facts} learned again")
    if operation.message:
        table.add_row("reason", shown(operation.message))
    for name, value in told(operation.proof):
        table.add_row(name, shown(value))
    return table


def operation_text(operation: OperationStatus) -> str:
    """An operation that is not over, on one line."""
    subject = operation.fact_id or f"to version {operation.to_version}"
    progress = ""
    if operation.total_facts:
        progress = f", {operation.done_facts} of {operation.total_facts} facts learned again"
    return f"{operation.id}: {kind_text(operation)} {subject}, {operation.state}{progress}"


def told(proof: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A proof in words; --json has all of its numbers."""
    steps = {
        "before teaching": proof.get("probability_before_teaching"),
        "taught": proof.get("probability_taught"),
        "where it was never seen": proof.get("probability_on_branch_start"),
        "now": proof.get("probability_after"),
    }
    told = [f"{_probability(p)} {when}" for when, p in steps.items() if p is not None]
    if told:
        yield "its answer's p", ", ".join(told)
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
    for version, because in (
        ("branch_from", "branch_from_because"),
        ("served", "served_because"),
    ):
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
