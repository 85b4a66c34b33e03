"""Benchmarks: how a loop is closed, what is compared, and that they run. No figure is judged."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.teaching.learner_protocol import Learner
from eval.bench.closed_loop import closed_loop
from eval.bench.enqueue import measure_enqueue, new_requests
from eval.bench.figure import Figure
from eval.bench.instrumented_server import StallLog, read_stalls
from eval.bench.operations import measure_operations
from eval.bench.stub_learner import StubLearner
from memory_store.store import MemoryStore
from tests.store.builders import new_fact

FIELDS = {"name", "ours", "baseline", "unit", "ratio", "floor", "device"}


async def test_a_closed_loop_sends_all_and_keeps_so_many_in_flight() -> None:
    seen: list[int] = []
    in_flight = most = 0

    async def call(request: int) -> None:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        seen.append(request)
        await asyncio.sleep(0)
        in_flight -= 1

    load = await closed_loop(call, range(50), 7)
    assert sorted(seen) == list(range(50))
    assert most == 7
    assert len(load.latencies) == 50
    assert load.quantile(0.5) <= load.quantile(0.99) <= load.quantile(1.0)


def test_facts_of_a_benchmark_are_new_each_time() -> None:
    requests = new_requests(10) + new_requests(10)
    assert len({request.question for request in requests}) == 20
    assert len({request.request_id for request in requests}) == 20


@pytest.mark.parametrize(
    ("ratio", "floor", "reached"), [(0.8, 0.75, True), (0.7, 0.75, False), (0, None, True)]
)
def test_a_figure_knows_whether_its_floor_is_reached(
    ratio: float, floor: float | None, reached: bool
) -> None:
    figure = Figure(
        name="n", ours=1, baseline=1, unit="ms", ratio=ratio, floor=floor, device="here"
    )
    assert figure.reached is reached
    assert figure.json().keys() == FIELDS


def test_a_slow_disk_is_slow_where_it_commits(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from eval.bench.slow_disk import slow_down;"
        "from memory_store import facts; from memory_store.store import MemoryStore;"
        "from memory_store.vocabulary import NewFact;"
        "store = MemoryStore.open(Path(sys.argv[1])); slow_down(0.3);"
        "store.teach(NewFact(question='Sky?', answer='Piano'));"
        "facts.count_by_state(store.connection)"
    )
    path = tmp_path / "memory.db"
    with MemoryStore.open(path) as store:
        store.teach(new_fact())
    started = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, env=environment)
    assert time.perf_counter() - started > 0.3  # a lower bound: it sleeps at least so long
    with MemoryStore.open(path, read_only=True) as store:
        assert len(store.facts()) == 2


@pytest.mark.slow
def test_facts_are_accepted_beside_every_baseline(tmp_path: Path) -> None:
    told: list[str] = []
    figures = measure_enqueue(told.append, tmp_path, facts=1000, rounds=1, calls=20)
    names = [figure.name for figure in figures]
    assert len(set(names)) == len(names) == 10
    for figure in figures:
        assert figure.ours > 0
        assert figure.baseline > 0
    assert len([figure for figure in figures if figure.floor is not None]) == 8
    assert len(told) == 5
    assert list(tmp_path.iterdir()) == []  # it cleans up


def test_every_action_on_a_large_memory_is_measured(tmp_path: Path) -> None:  # H5, M7, M11
    said: list[str] = []
    figures = list(measure_operations(said.append, tmp_path, facts=600, watchers=3, seconds=0.05))
    held = [figure for figure in figures if figure.unit == "ms held"]
    actions = {figure.name.rpartition(": ")[0] for figure in held}
    assert {"list all facts", "forget: begin to finish", "erase: request"} <= actions
    assert {"roll back: begin to finish", "forget the first fact", "all of it"} <= actions
    whole = {figure.name: figure.ours for figure in held if figure.name.startswith("all of it:")}
    assert sum(figure.name.startswith("all of it, computing: ") for figure in held) == 3
    assert whole.keys() == {f"all of it: {who}" for who in ("reader", "writer", "loop")}
    assert whole["all of it: writer"] == max(f.ours for f in held if f.name.endswith(": writer"))
    assert whole["all of it: writer"] > 0
    [watched] = [figure for figure in figures if figure.unit == "facts/s"]
    assert watched.floor == 0.5
    assert "  each was sent" in " ".join(said)
    assert not any("given up" in what for what in said)


def test_what_blocked_a_thread_is_the_longest_of_its_action(tmp_path: Path) -> None:
    with (tmp_path / "stalls").open("w") as file:
        log = StallLog(file)
        log.note("writer", "before", 0.5, 0.4)
        since = time.monotonic()
        log.note("writer", "short", 0.0005, 0.0)
        log.note("writer", "finish_forget", 0.25, 0.2)
    [stall] = read_stalls(tmp_path / "stalls", since)
    assert (stall.who, stall.what, stall.seconds) == ("writer", "finish_forget", 0.25)


def test_the_stub_can_be_asked_whatever_a_learner_can_be_asked() -> None:
    asked = {name for name in vars(Learner) if not name.startswith("_")}
    assert asked <= set(dir(StubLearner))
    learner: Learner = StubLearner()  # for the type checker
    assert isinstance(learner, StubLearner)
