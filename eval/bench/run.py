"""Runs the benchmarks that `agent bench` names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from eval.bench.figure import Figure

ALL = "all"
OF_A_MODEL = ("update", "rates", "sample", "teach")
# How many facts are stored; `all` stores fewer, as they would take more time than the rest.
FACTS = {"enqueue": 1_000_000, "operations": 100_000, ALL: 200_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRequest:
    """What is measured; each benchmark uses the fields that concern it.

    Attributes:
        name: of a benchmark, or `ALL`, which leaves out `operations`.
        folder: where memories are made; None: the temporary folder.
        facts: how many are stored; None: as in `FACTS`.
        rounds: of each comparison of `enqueue`.
        calls: in each round of `enqueue`.
        model: a name, a Hub id, or a folder.
        shape: of random weights that are measured instead of `model`.
        device: of the model: auto, cpu or cuda.
        seconds: of rounds, for each benchmark of a model.
    """

    name: str
    folder: Path | None
    facts: int | None
    rounds: int
    calls: int
    model: str
    shape: str | None
    device: str
    seconds: float


def run_benchmarks(asked: BenchRequest, say: Callable[[str], None]) -> Iterator[Figure]:
    """Measures what is asked for; yields each figure as soon as it is known.

    Args:
        asked: what is measured.
        say: called with what is measured next.

    Raises:
        AgentError: a server does not start, a model cannot be loaded, or a result is wrong.
    """
    name = asked.name
    # Each is imported when it runs: those of the service need no torch.
    if name in ("enqueue", ALL):
        from eval.bench.enqueue import measure_enqueue

        facts = asked.facts or FACTS[name]
        yield from measure_enqueue(say, asked.folder, facts, asked.rounds, asked.calls)
    if name in ("ask", ALL):
        from eval.bench.ask import measure_ask

        say("Ask, idle, while learning, and in batches")
        yield from measure_ask()
    if name == "operations":
        from eval.bench.operations import measure_operations

        yield from measure_operations(say, asked.folder, asked.facts or FACTS[name])
    if chosen := [one for one in OF_A_MODEL if name in (one, ALL)]:
        from eval.bench.model_benchmarks import measure_model

        yield from measure_model(say, chosen, asked.model, asked.shape, asked.device, asked.seconds)
