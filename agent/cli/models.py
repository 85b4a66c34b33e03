"""`agent models list` and `agent models pull`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from agent.cli.options import Json
from agent.cli.output import console, messages, print_json, shown, some_of
from agent.models import catalog

app = typer.Typer(help="Models by name, and those on this machine.", no_args_is_help=True)


@app.command("list")
def list_models(json: Json = False) -> None:
    """List the models known by name. Any Hugging Face id or folder of a causal LM will do too."""
    entries = catalog.entries()
    if json:
        listed = [
            {
                **some_of(entry, "name source location parameters download_bytes"),
                "cached": catalog.is_cached(entry),
                "default": entry.name == catalog.DEFAULT_MODEL,
            }
            for entry in entries
        ]
        print_json({"models": listed})
        return
    table = Table("name", "parameters", "download", "here", "what it is")
    for entry in entries:
        table.add_row(
            entry.name + (" (default)" if entry.name == catalog.DEFAULT_MODEL else ""),
            f"{entry.parameters / 1e6:.1f} M" if entry.parameters else "",
            f"{entry.download_bytes / 1e6:.0f} MB" if entry.download_bytes else "",
            "yes" if catalog.is_cached(entry) else "no",
            shown(entry.description),
        )
    console.print(table)


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="A known name, or a Hugging Face id.")],
    json: Json = False,
) -> None:
    """Fetch a model, so that a server starts without the network."""
    from agent.models.loading import fetch  # imports torch

    entry = catalog.resolve(name)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeElapsedColumn(),
        console=messages,
        disable=not messages.is_terminal,
    ) as progress:
        tasks = {}

        def report(stage: str, done: float, total: float | None) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done, total=total)

        folder = fetch(entry, progress=report)
    if json:
        print_json({"name": name, "folder": str(folder) if folder else None})
    else:
        messages.print(shown(f"{name} is ready" + (f" in {folder}" if folder else "")))
