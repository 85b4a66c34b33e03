"""`agent snapshots | export | backup | compact`: manages files on the server's machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from agent.cli.connection import Connection
from agent.cli.option_groups import grouped
from agent.cli.options import Json
from agent.cli.output import console, messages, print_json, shown
from agent.config import DATABASE, DEFAULT_KEEP_EVENTS
from agent.errors import ConfigError

snapshots = typer.Typer(help="Snapshots of the weights of a server.", no_args_is_help=True)


@snapshots.command("list")
@grouped
def list_snapshots(*, connection: Connection, json: Json = False) -> None:
    """List snapshots, newest first."""
    with connection.client() as client:
        listed = client.snapshots()
    if json:
        print_json({"snapshots": listed})
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
        print_json(snapshot)
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


@grouped
def export(
    folder: Annotated[Path, typer.Argument(help="The new folder, on the server's machine.")],
    *,
    connection: Connection,
    json: Json = False,
) -> None:
    """Write a plain Hugging Face checkpoint with what was learned."""
    with connection.client() as client, messages.status("writing"):
        version = client.export(str(folder.absolute()))
    _report_written(folder, version, json)


@grouped
def backup(
    folder: Annotated[Path, typer.Argument(help="The new folder, on the server's machine.")],
    *,
    connection: Connection,
    json: Json = False,
) -> None:
    """Copy database and snapshots while the server runs. The copy is a data folder for --data."""
    with connection.client() as client, messages.status("copying"):
        version = client.backup(str(folder.absolute()))
    _report_written(folder, version, json)


def _report_written(folder: Path, version: int, json: bool) -> None:
    if json:
        print_json({"folder": str(folder.absolute()), "model_version": version})
    else:
        messages.print(shown(f"{folder} holds model version {version}"))


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
        int,
        typer.Option(min=1000, help="With --data: keep this many events, as 'agent serve' does."),
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
        from agent.server.data.folder import held  # imports a lock, and the store
        from memory_store.compaction import compact_file

        if not (data / DATABASE).is_file():
            raise ConfigError(f"{data} holds no memory: name the folder of one")
        with held(data), messages.status("compacting"):
            done = compact_file(data / DATABASE, keep_events)
    if json:
        print_json(done)
        return
    messages.print(
        f"{done.bytes_after / 1e6:.1f} MB, before {done.bytes_before / 1e6:.1f} MB; removed"
        f" {done.removed_probes} probes and {done.removed_events} events"
    )
    if done.postponed:
        messages.print(shown(done.postponed))
    if done.reclaimable_bytes:
        messages.print(
            f"{done.reclaimable_bytes / 1e6:.1f} MB of it are free: stop the server, and run"
            " 'agent compact --data FOLDER' to give them back"
        )
