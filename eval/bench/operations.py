"""How long a large memory is held up by forgetting, rolling back, erasing, listing and watching.

A server with a stand-in for the learner, on a synthetic memory. Its two store threads and its event
loop are timed: whatever holds one of them keeps every client waiting that long.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from agent.client.client import Client
from agent.config import DATABASE
from agent.errors import AgentError
from agent.python_command import python_command
from continual.v1 import memory_pb2 as pb
from continual.v1 import memory_pb2_grpc
from eval.bench.closed_loop import closed_loop
from eval.bench.enqueue import IN_FLIGHT, new_requests
from eval.bench.figure import Figure, this_machine
from eval.bench.instrumented_server import LOOP, READER, WRITER, Hold, read_holds
from eval.bench.server_process import BenchmarkServer, benchmark_server
from eval.bench.synthetic_memory import LargeMemory, fact_id
from eval.bench.watchers import WATCHING
from memory_store.vocabulary import NewFact

HELD_MS = 100.0
WATCHED_BESIDE_ALONE = 0.5
WATCHERS = 500
BATCH_FACTS, BATCH_BYTES = 1000, 2**20
# Longer than this, an operation is given up, and counts as held for all that time.
ACTION_SECONDS = 180.0
# Facts that are still to be learned again when the server begins.
LEFT = 100
# Of older facts, with each update: about as many as thinning leaves.
PROBES = 4
HOLDS = "holds.jsonl"

Say = Callable[[str], None]


def operating(
    say: Say = lambda what: None,
    folder: Path | None = None,
    facts: int = 100_000,
    watchers: int = WATCHERS,
    seconds: float = 3.0,
) -> Iterator[Figure]:
    """Measures all of it; yields each figure when it is there.

    Args:
        say: called with what is being done.
        folder: where the memory is made, and removed again; None: the temporary folder.
        facts: that the memory holds.
        watchers: clients that watch.
        seconds: of each round of teaching.

    Raises:
        AgentError: a server does not start.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        data = Path(name) / "memory"
        say(f"making a memory of {facts} facts")
        memory = LargeMemory(data, facts, PROBES)
        memory.make()
        yield _bytes_a_fact(data / DATABASE, facts)
        longest: dict[str, float] = {}
        computing: dict[str, float] = {}
        with _serving(data, computing) as measured:
            yield from _together(_actions(measured, say, facts, watchers, seconds), longest)
        say(f"learning {facts} facts again, on the way to forgetting the first of them")
        operation = memory.begin_forgetting(LEFT)
        with (
            _serving(data, computing) as measured,
            measured.action("forget the first fact", say) as held,
        ):
            measured.finished(operation)
        yield from _together(iter(held), longest)
        for who, milliseconds in longest.items():
            yield _held_figure("all of it", who, milliseconds)
        # On a machine that does other work too, the rest is waiting for processor and disk.
        for who, milliseconds in computing.items():
            yield _held_figure("all of it, computing", who, milliseconds)


def _together(figures: Iterator[Figure], longest: dict[str, float]) -> Iterator[Figure]:
    """Notes the longest of each thread on the way."""
    for figure in figures:
        _, _, who = figure.name.rpartition(": ")
        if who in (READER, WRITER, LOOP):
            longest[who] = max(longest.get(who, 0.0), figure.ours)
        yield figure


def _bytes_a_fact(database: Path, facts: int) -> Figure:
    return Figure(
        name="size of the database before",
        ours=database.stat().st_size / facts,
        baseline=1.0,
        unit="bytes a fact",
        ratio=1.0,
        floor=None,
        device=this_machine(),
    )


def _held_figure(action: str, who: str, milliseconds: float) -> Figure:
    return Figure(
        name=f"{action}: {who}",
        ours=milliseconds,
        baseline=HELD_MS,
        unit="ms held",
        ratio=HELD_MS / max(milliseconds, 1e-3),
        floor=1.0,
        device=this_machine(),
    )


@dataclass(frozen=True, slots=True)
class _Measured:
    """A server and what held it.

    Attributes:
        server: that runs.
        client: of it.
        holds: the file that they are written to.
        computing: the longest time in milliseconds that each thread computed for one of them.
    """

    server: BenchmarkServer
    client: Client
    holds: Path
    computing: dict[str, float]

    @contextmanager
    def action(self, name: str, say: Say) -> Iterator[list[Figure]]:
        """What was held inside; the list is filled on leaving."""
        say(name)
        figures: list[Figure] = []
        started = time.monotonic()
        given_up = False
        try:
            yield figures
        except TimeoutError as error:
            say(f"  given up: {error}")
            given_up = True
        longest: dict[str, Hold] = {}
        for hold in read_holds(self.holds, started):
            computed = 1000 * hold.processor_seconds
            self.computing[hold.who] = max(self.computing.get(hold.who, 0.0), computed)
            if hold.who not in longest or hold.seconds > longest[hold.who].seconds:
                longest[hold.who] = hold
        for who in (READER, WRITER, LOOP):
            milliseconds = 0.0
            if who in longest:
                hold = longest[who]
                milliseconds = 1000 * hold.seconds
                say(f"  {who} {milliseconds:.0f} ms{_by(hold)}")
            if given_up and who != LOOP:
                milliseconds = max(milliseconds, 1000 * (time.monotonic() - started))
            figures.append(_held_figure(name, who, milliseconds))

    def finished(self, operation_id: int) -> None:
        """Waits for an operation.

        Raises:
            TimeoutError: it takes longer than `ACTION_SECONDS`.
            AgentError: it failed.
        """
        deadline = time.monotonic() + ACTION_SECONDS
        while (operation := self.client.operation(operation_id)).state in ("pending", "running"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not done after {ACTION_SECONDS:.0f} s")
            time.sleep(0.1)
        if operation.state != "done":
            raise AgentError(f"the operation of the benchmark failed: {operation.message}")


def _by(hold: Hold) -> str:
    by = f" by {hold.what}" if hold.what else ""
    return f"{by}, computing {1000 * hold.processor_seconds:.0f}"


@contextmanager
def _serving(data: Path, computing: dict[str, float]) -> Iterator[_Measured]:
    """A server on the memory that learns nothing new."""
    holds = data / HOLDS
    holds.touch()
    module = ("-m", "eval.bench.instrumented_server", str(data), str(holds))
    with benchmark_server(data, module, options=None) as server, Client(server.address) as client:
        client.pause_learning()
        yield _Measured(server, client, holds, computing)


def _actions(
    measured: _Measured, say: Say, facts: int, watchers: int, seconds: float
) -> Iterator[Figure]:
    client = measured.client
    with measured.action("list all facts", say) as held:
        for _ in client.facts():
            pass
    yield from held
    with measured.action("status, retention, one fact, one explanation", say) as held:
        client.status()
        client.retention(100, 100)
        client.history(fact_id(1))
        client.explain("What is the hottest month in Kyzara1?")
    yield from held
    with measured.action("compact", say) as held:
        client.compact()
    yield from held
    with measured.action(f"a batch of {BATCH_FACTS} facts, 1 MiB", say) as held:
        client.teach_batch(list(_large_facts()))
    yield from held
    with measured.action("teach", say) as held:
        alone = asyncio.run(_teach_rate(measured.server.address, seconds))
    yield from held
    name = f"teach, {watchers} clients watching"
    with measured.action(name, say) as held, _watching(measured.server.address, watchers, say):
        watched = asyncio.run(_teach_rate(measured.server.address, seconds))
    yield from held
    yield Figure(
        name=f"{name}, compared with none",
        ours=watched,
        baseline=alone,
        unit="facts/s",
        ratio=watched / alone,
        floor=WATCHED_BESIDE_ALONE,
        device=this_machine(),
    )
    yield from _taking_back(measured, say, facts)


def _taking_back(measured: _Measured, say: Say, facts: int) -> Iterator[Figure]:
    """Few facts follow those that are forgotten: what is learned again costs the server little."""
    client = measured.client
    requests: Mapping[str, Callable[[], int]] = {
        "forget": lambda: client.forget(fact_id(facts - 30))[0].id,
        "erase": lambda: client.forget(fact_id(facts - 20), erase=True)[0].id,
        "roll back": lambda: client.rollback(facts - 40).id,
    }
    for name, request in requests.items():
        with measured.action(f"{name}: request", say) as held:
            operation = request()
        yield from held
        with measured.action(f"{name}: begin to finish", say) as held:
            measured.finished(operation)
        yield from held


def _large_facts() -> Iterator[NewFact]:
    """A batch of one mebibyte, most of it in questions that go with the facts."""
    share = BATCH_BYTES // BATCH_FACTS // 32
    for number in range(BATCH_FACTS):
        correlated = tuple(f"And {number} of {other}?".ljust(share - 3, "x") for other in range(31))
        yield NewFact(
            question=f"What is in the batch at {number}?",
            answer="Raincoat",
            correlated_questions=correlated,
        )


async def _teach_rate(address: str, seconds: float, rounds: int = 3) -> float:
    """Facts a second, the median of some rounds."""
    rates = []
    async with grpc.aio.insecure_channel(address) as channel:
        stub = memory_pb2_grpc.MemoryServiceStub(channel)
        for _ in range(rounds):
            deadline = time.monotonic() + seconds
            rates.append((await closed_loop(stub.Teach, _requests(deadline), IN_FLIGHT)).rate)
    return statistics.median(rates)


def _requests(deadline: float) -> Iterator[pb.TeachRequest]:
    while time.monotonic() < deadline:
        yield from new_requests(1)


@contextmanager
def _watching(address: str, watchers: int, say: Say) -> Iterator[None]:
    """Clients in a process of their own, each of which was sent an event before this goes on."""
    process = subprocess.Popen(
        python_command("-m", "eval.bench.watchers", address, str(watchers)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        asyncio.run(_teach_until_watched(address, process))
        yield
        process.stdin.close()
        say(f"  each was sent {float(process.stdout.readline()):.0f} events")
    finally:
        process.kill()
        process.wait()
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.stdout.close()


async def _teach_until_watched(address: str, process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    watched = asyncio.create_task(asyncio.to_thread(process.stdout.readline))
    async with grpc.aio.insecure_channel(address) as channel:
        stub = memory_pb2_grpc.MemoryServiceStub(channel)
        while not watched.done():
            await closed_loop(stub.Teach, new_requests(1), 1)
            await asyncio.wait([watched], timeout=0.2)
    if watched.result().strip() != WATCHING:
        raise AgentError("the clients of the benchmark could not watch")
