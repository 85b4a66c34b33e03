"""`agent eval compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from agent.cli.options import Json
from agent.cli.output import console, print_json, shown
from agent.errors import ConfigError


def compare(
    first: Annotated[Path, typer.Argument(help="Results folder of one run.")],
    second: Annotated[Path, typer.Argument(help="Results folder of another run of that suite.")],
    json: Json = False,
) -> None:
    """Compare two finished runs, count by count, with 95% intervals of the differences."""
    from eval.reports.comparison import compare_runs
    from eval.reports.tables import shown_fraction

    try:
        found = compare_runs(first, second)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error
    if json:
        print_json(found.as_json())
        return
    for name, (one, other) in found.settings.items():
        console.print(shown(f"{name}: {one} | {other}"), soft_wrap=True)
    table = Table("count", "first", "second", "difference, 95%", "the second is")
    for count in found.counts:
        low, high = count.interval
        table.add_row(
            count.name,
            shown_fraction(count.first),
            shown_fraction(count.second),
            f"{100 * low:+.1f} to {100 * high:+.1f} points",
            count.change.value,
        )
    console.print(table)
    console.print("One in twenty counts differs by chance alone.")
    if found.missing:
        console.print(shown(f"Only one run has: {', '.join(found.missing)}"), soft_wrap=True)
