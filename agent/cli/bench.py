"""`agent bench`: what this machine does, beside a baseline of the same run."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from agent.cli.options import Json
from agent.cli.output import console, messages, print_json
from agent.errors import ConfigError

if TYPE_CHECKING:
    from eval.bench.figure import Figure


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What is told of a benchmark.

    Attributes:
        measures: what.
        costs: how long it takes.
    """

    measures: str
    costs: str


SERVICE = {
    "enqueue": Benchmark(
        "how fast facts are accepted, and whether a million of them slows anything down",
        "two minutes, and 0.6 GB of disk",
    ),
    "ask": Benchmark(
        "how long answers take while facts are learned, and in batches", "under a minute"
    ),
    "operations": Benchmark(
        "how long forgetting, rolling back, erasing, listing and watching hold up a large memory",
        "some minutes, and 2 GB of disk",
    ),
}
OF_A_MODEL = {
    "update": Benchmark("one update of a single example, and a step with guards", "half a minute"),
    "rates": Benchmark("a profile of sixteen rates and its update", "half a minute"),
    "sample": Benchmark("texts by the paper's settings, graded", "half a minute"),
    "teach": Benchmark(
        "from Teach to learned, by the default policy", "a minute or two on a CPU, half a one else"
    ),
}
BENCHMARKS = SERVICE | OF_A_MODEL
ALL = "all"
# With all others, so many facts are stored unless it is said: they take more time than the rest.
FACTS, FACTS_OF_ALL = 1_000_000, 200_000
OPERATED_FACTS = 100_000
# Of rounds, for each benchmark of a model.
SECONDS = 20.0


def bench(
    name: Annotated[
        str | None,
        typer.Argument(
            help="; ".join(f"{name}: {one.measures}" for name, one in BENCHMARKS.items())
            + f"; {ALL}: all of these but operations.",
            show_default=False,
        ),
    ] = None,
    list_benchmarks: Annotated[
        bool, typer.Option("--list", help="Show the benchmarks, what they measure and cost.")
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Where memories are made, and removed again: the disk that is measured.",
            show_default="the system's temporary folder",
        ),
    ] = None,
    facts: Annotated[
        int | None,
        typer.Option(
            min=1000,
            help="enqueue, operations: stored, to see whether size costs time.",
            show_default=f"{FACTS}; of {ALL} {FACTS_OF_ALL}; of operations {OPERATED_FACTS}",
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="enqueue: of each comparison; medians are told.")
    ] = 9,
    calls: Annotated[int, typer.Option(min=1, help="enqueue: in each round.")] = 500,
    model: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(OF_A_MODEL)}: a name of 'agent models list', a Hub id, or a folder."
        ),
    ] = "smollm2-135m",
    shape: Annotated[
        str | None,
        typer.Option(
            help="Random weights of this shape instead, which need no download: pythia-410m.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Of the model: auto, cpu or cuda.")] = "auto",
    seconds: Annotated[
        float,
        typer.Option(
            min=0, help="Of a model: no further round begins that would not end within these."
        ),
    ] = SECONDS,
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

    stored = facts or {ALL: FACTS_OF_ALL, "operations": OPERATED_FACTS}.get(name, FACTS)
    figures: list[Figure] = []
    try:
        with _ended_by_sigterm():
            for figure in chain(
                _of_service(name, folder, stored, rounds, calls),
                _of_model(name, model, shape, device, seconds),
            ):
                figures.append(figure)
    finally:
        # Also if a result was wrong or it was ended: what was measured may have taken minutes.
        if figures:
            _print(figures, json)
    if not all(figure.reached for figure in figures):
        raise typer.Exit(1)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """`timeout` and service managers end a command as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _of_service(
    name: str, folder: Path | None, facts: int, rounds: int, calls: int
) -> Iterator[Figure]:
    if name in ("enqueue", ALL):
        from eval.bench.enqueue import enqueueing  # gRPC is not needed for --help

        yield from enqueueing(_say, folder, facts, rounds, calls)
    if name in ("ask", ALL):
        from eval.bench.ask import asking

        _say("Ask, idle, while learning, and in batches")
        yield from asking()
    # Not one of all: it takes longer than the others together.
    if name == "operations":
        from eval.bench.operations import operating

        yield from operating(_say, folder, facts)


def _of_model(
    name: str, model: str, shape: str | None, device: str, seconds: float
) -> Iterator[Figure]:
    chosen = list(OF_A_MODEL) if name == ALL else [name] if name in OF_A_MODEL else []
    if chosen:
        from eval.bench.run import measuring

        yield from measuring(_say, chosen, model, shape, device, seconds)


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
    else:
        table = Table("benchmark", "ours", "baseline", "unit", "ratio", "floor", "of floor")
        for figure in figures:
            share = figure.share_of_floor
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
