"""`agent bench`: what this machine does, beside a baseline of the same run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from agent.cli.options import Json
from agent.cli.output import console, messages, print_json
from agent.errors import ConfigError

if TYPE_CHECKING:
    from eval.benchmarks import Figure

# What each measures.
BENCHMARKS = {
    "enqueue": "how fast facts are accepted, and whether a million of them slows anything down",
    "ask": "how long answers take while facts are learned, and in batches",
}
ALL = "all"


def bench(
    name: Annotated[
        str | None,
        typer.Argument(
            help="; ".join(f"{name}: {what}" for name, what in BENCHMARKS.items())
            + f"; {ALL}: all of these.",
            show_default=False,
        ),
    ] = None,
    list_benchmarks: Annotated[
        bool, typer.Option("--list", help="Show the benchmarks and what they measure.")
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Where memories are made, and removed again: the disk that is measured.",
            show_default="the system's temporary folder",
        ),
    ] = None,
    facts: Annotated[
        int, typer.Option(min=1000, help="enqueue: stored, to see whether size costs time.")
    ] = 1_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="Of each comparison: medians are told.")] = 9,
    calls: Annotated[int, typer.Option(min=1, help="enqueue: in each round.")] = 500,
    json: Json = False,
) -> None:
    """Measure this machine. Exit code 1 if a ratio is below its floor."""
    if list_benchmarks:
        _list(json)
        return
    if name is None:
        raise typer.BadParameter("name a benchmark, or give --list")
    if name not in (*BENCHMARKS, ALL):
        raise ConfigError(f"unknown benchmark '{name}': use one of {', '.join((*BENCHMARKS, ALL))}")
    from eval.benchmarks.ask import asking  # these import gRPC: not needed for --help
    from eval.benchmarks.enqueue import enqueueing

    def say(what: str) -> None:
        messages.print(what, style="dim", highlight=False)

    figures: list[Figure] = []
    if name in ("enqueue", ALL):
        figures += enqueueing(say, folder, facts, rounds, calls)
    if name in ("ask", ALL):
        say("Ask, idle, while learning, and in batches")
        figures += asking()
    _print(figures, json)
    if not all(figure.reached for figure in figures):
        raise typer.Exit(1)


def _list(json: bool) -> None:
    if json:
        print_json({"benchmarks": [{"name": n, "measures": m} for n, m in BENCHMARKS.items()]})
        return
    table = Table("benchmark", "measures")
    for name, measures in BENCHMARKS.items():
        table.add_row(name, measures)
    console.print(table)


def _print(figures: Sequence[Figure], json: bool) -> None:
    if json:
        print_json({"benchmarks": [figure.json() for figure in figures]})
    else:
        table = Table("benchmark", "ours", "baseline", "unit", "ratio", "floor")
        for figure in figures:
            table.add_row(
                figure.name,
                f"{figure.ours:,.3g}" if figure.ours < 100 else f"{figure.ours:,.0f}",
                f"{figure.baseline:,.3g}" if figure.baseline < 100 else f"{figure.baseline:,.0f}",
                figure.unit,
                f"{figure.ratio:.2f}",
                "" if figure.floor is None else f"{figure.floor:g}",
                style="" if figure.reached else "red",
            )
        console.print(table)
