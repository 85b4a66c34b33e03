"""`agent bench`: what this machine does, compared with a baseline of the same run."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from agent.cli.option_groups import grouped
from agent.cli.options import Json
from agent.cli.output import console, messages, print_json
from agent.errors import ConfigError

if TYPE_CHECKING:
    from eval.bench.figure import Figure


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The description of a benchmark.

    Attributes:
        measures: what it measures.
        costs: how long it takes.
    """

    measures: str
    costs: str


BENCHMARKS = {
    "enqueue": Benchmark(
        "how fast facts are accepted, and whether a million of them slows anything down",
        "two minutes, and 0.6 GB of disk",
    ),
    "ask": Benchmark(
        "how long answers take while facts are learned, and in batches", "under a minute"
    ),
    "operations": Benchmark(
        "how long forgetting, rolling back, erasing, listing and watching block a large memory",
        "some minutes, and 2 GB of disk",
    ),
    "update": Benchmark("one update of a single example, and a step with guards", "half a minute"),
    "rates": Benchmark("a profile of sixteen rates and its update", "half a minute"),
    "sample": Benchmark("texts by the paper's settings, graded", "half a minute"),
    "teach": Benchmark(
        "from Teach to learned, by the default policy",
        "a minute or two on a CPU, half a minute on a GPU",
    ),
}
ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What the benchmarks are run with."""

    folder: Annotated[
        Path | None,
        typer.Option(
            help="Make the memories in this folder and remove them again; its disk is measured.",
            show_default="the system's temporary folder",
        ),
    ] = None
    facts: Annotated[
        int | None,
        typer.Option(
            min=1000,
            help="For enqueue and operations, store this many facts.",
            show_default="1000000; of operations 100000; of all 200000",
        ),
    ] = None
    rounds: Annotated[
        int,
        typer.Option(
            min=1, help="For enqueue, repeat each comparison this often and show the medians."
        ),
    ] = 9
    calls: Annotated[
        int,
        typer.Option(min=1, help="For enqueue, make this many calls in each round."),
    ] = 500
    model: Annotated[
        str,
        typer.Option(
            help="Measure this model: a name of 'agent models list', a Hub id, or a folder."
        ),
    ] = "smollm2-135m"
    shape: Annotated[
        str | None,
        typer.Option(
            help="Measure random weights of this shape (pythia-410m), which need no download.",
            show_default=False,
        ),
    ] = None
    device: Annotated[
        str,
        typer.Option(help="Run the model on this device: auto, cpu or cuda."),
    ] = "auto"
    seconds: Annotated[
        float,
        typer.Option(min=0, help="Begin no round that would not end within this time."),
    ] = 20.0


@grouped
def bench(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Run "
            + ", ".join(f"{name} ({one.measures})" for name, one in BENCHMARKS.items())
            + f", or {ALL}, which leaves out operations.",
            show_default=False,
        ),
    ] = None,
    list_benchmarks: Annotated[
        bool, typer.Option("--list", help="Show what the benchmarks measure and cost.")
    ] = False,
    *,
    options: BenchOptions,
    json: Json = False,
) -> None:
    """Measure this machine. Exit code 1 if a ratio is below its floor, or a result is wrong."""
    if list_benchmarks:
        _list(json)
        return
    if name is None:
        raise typer.BadParameter("name a benchmark, or give --list")
    if name not in (*BENCHMARKS, ALL):
        raise ConfigError(f"unknown benchmark '{name}': use one of {', '.join((*BENCHMARKS, ALL))}")

    from eval.bench.run import BenchRequest, run_benchmarks

    figures: list[Figure] = []
    try:
        with _ended_by_sigterm():
            for figure in run_benchmarks(BenchRequest(name=name, **asdict(options)), _say):
                figures.append(figure)
    finally:
        # Also after a wrong result or a signal: the measurements may have taken minutes.
        if figures:
            _print(figures, json)
    if not all(figure.reached for figure in figures):
        raise typer.Exit(1)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Treats SIGTERM, which `timeout` and service managers send, like Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(what: str) -> None:
    messages.print(what, style="dim", highlight=False)


def _list(json: bool) -> None:
    if json:
        print_json({"benchmarks": [{"name": n} | asdict(b) for n, b in BENCHMARKS.items()]})
        return
    table = Table("benchmark", "measures", "costs")
    for name, one in BENCHMARKS.items():
        table.add_row(name, one.measures, one.costs)
    console.print(table)


def _print(figures: Sequence[Figure], json: bool) -> None:
    if json:
        print_json({"benchmarks": [figure.json() for figure in figures]})
        return
    table = Table("benchmark", "ours", "baseline", "unit", "ratio", "floor", "of floor")
    for figure in figures:
        share = figure.share_of_limit
        table.add_row(
            figure.name,
            _number(figure.ours),
            _number(figure.baseline),
            figure.unit,
            f"{figure.ratio:.2f}",
            "" if figure.floor is None else _number(figure.floor),
            "" if share is None else f"{share:.0%}",
            style="" if figure.reached else "red",
        )
    console.print(table)
    for device in dict.fromkeys(figure.device for figure in figures):
        console.print(device, style="dim", highlight=False)


def _number(value: float) -> str:
    return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"
