"""Benchmark `operations`: how long forgetting, rolling back, erasing, listing and watching block.

A server with a stub learner runs on a large synthetic memory. Its two store threads and its event
loop are timed: whatever blocks one of them keeps every client waiting for that time.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import grpc

from agent.client.client import Client
from agent.config import DATABASE
from agent.errors import AgentError
from agent.python_command import python_command
from continual.v1 import memory_pb2 as pb
from continual.v1 import memory_pb2_grpc
from eval.bench.closed_loop import closed_loop
from eval.bench.enqueue import IN_FLIGHT, new_requests
from eval.bench.figure import Figure, compare, this_machine
from eval.bench.instrumented_server import LOOP, READER, WRITER, Stall, read_stalls
from eval.bench.server_process import BenchmarkServer, benchmark_server
from eval.bench.synthetic_memory import SyntheticMemory, fact_id
from eval.bench.watchers import WATCHING
from memory_store.vocabulary import NewFact

HELD_MS = 100.0
WATCHED_BESIDE_ALONE = 0.5
WATCHERS = 500
BATCH_FACTS, BATCH_BYTES = 1000, 2**20
# An operation that takes longer is given up, and counts as blocking for all that time.
ACTION_SECONDS = 180.0
# Facts that are still to be learned again when the server starts.
LEFT = 100
# Of older facts after each update: about as many as thinning leaves.
PROBES = 4
STALLS = "stalls.jsonl"

Say = Callable[[str], None]
T = TypeVar("T")


def measure_operations(
    say: Say,
    folder: Path | None,
    facts: int,
    watchers: int = WATCHERS,
    seconds: float = 3.0,
) -> Iterator[Figure]:
    """Measures all of it; yields each figure as soon as it is known.

    Args:
        say: called with what is measured next.
        folder: where the memory is made, and removed again; None: the temporary folder.
        facts: how many the memory holds.
        watchers: how many clients watch.
        seconds: of each round of teaching.

    Raises:
        AgentError: a server does not start.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        data = Path(name) / "memory"
        say(f"making a memory of {facts} facts")
        memory = SyntheticMemory(data, facts, PROBES)
        memory.make()
        yield _bytes_a_fact(data / DATABASE, facts)
        longest: dict[str, float] = {}
        computing: dict[str, float] = {}
        with _serving(data, say, longest, computing) as measured:
            yield from _actions(measured, facts, watchers, seconds)
        say(f"learning {facts} facts again, on the way to forgetting the first of them")
        operation = memory.begin_forgetting(LEFT)
        with _serving(data, say, longest, computing) as measured:
            yield from measured.action(
                "forget the first fact", lambda: measured.finished(operation)
            )
        for who, milliseconds in longest.items():
            yield _held_figure("all of it", who, milliseconds)
        # On a machine with other work, the rest is waiting for processor and disk.
        for who, milliseconds in computing.items():
            yield _held_figure("all of it, computing", who, milliseconds)


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
    """A server, and what blocked it.

    Attributes:
        server: the running one.
        client: of it.
        say: called with what is measured next.
        stalls: the file that the server writes them to.
        longest: milliseconds of the longest stall of each thread so far.
        computing: milliseconds of the longest time that each thread computed in one stall.
    """

    server: BenchmarkServer
    client: Client
    say: Say
    stalls: Path
    longest: dict[str, float]
    computing: dict[str, float]

    def action(self, name: str, act: Callable[[], T]) -> Generator[Figure, None, T | None]:
        """Does something; yields what it blocked, for each thread.

        Returns:
            The result; None if it was given up.
        """
        self.say(name)
        started = time.monotonic()
        result, given_up = None, False
        try:
            result = act()
        except TimeoutError as error:
            self.say(f"  given up: {error}")
            given_up = True
        stalls = read_stalls(self.stalls, started)
        for who in (READER, WRITER, LOOP):
            milliseconds = 0.0
            if own := [stall for stall in stalls if stall.who == who]:
                worst = max(own, key=lambda stall: stall.seconds)
                milliseconds = 1000 * worst.seconds
                self.say(f"  {who} {milliseconds:.0f} ms{_by(worst)}")
                computed = 1000 * max(stall.processor_seconds for stall in own)
                self.computing[who] = max(self.computing.get(who, 0.0), computed)
            if given_up and who != LOOP:
                milliseconds = max(milliseconds, 1000 * (time.monotonic() - started))
            self.longest[who] = max(self.longest.get(who, 0.0), milliseconds)
            yield _held_figure(name, who, milliseconds)
        return result

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


def _by(stall: Stall) -> str:
    by = f" by {stall.what}" if stall.what else ""
    return f"{by}, computing {1000 * stall.processor_seconds:.0f}"


@contextmanager
def _serving(
    data: Path, say: Say, longest: dict[str, float], computing: dict[str, float]
) -> Iterator[_Measured]:
    """A server on the memory that learns nothing new."""
    stalls = data / STALLS
    stalls.touch()
    module = ("-m", "eval.bench.instrumented_server", str(data), str(stalls))
    with benchmark_server(data, module, options=None) as server, Client(server.address) as client:
        client.pause_learning()
        yield _Measured(server, client, say, stalls, longest, computing)


def _actions(measured: _Measured, facts: int, watchers: int, seconds: float) -> Iterator[Figure]:
    client, address = measured.client, measured.server.address

    def read_a_little() -> None:
        client.status()
        client.retention(100, 100)
        client.history(fact_id(1))
        client.explain("What is the hottest month in Kyzara1?")

    def teach() -> float:
        return asyncio.run(_teach_rate(address, seconds))

    def teach_watched() -> float:
        with _watching(address, watchers, measured.say):
            return teach()

    yield from measured.action("list all facts", lambda: sum(1 for _ in client.facts()))
    yield from measured.action("status, retention, one fact, one explanation", read_a_little)
    yield from measured.action("compact", client.compact)
    yield from measured.action(
        f"a batch of {BATCH_FACTS} facts, 1 MiB", lambda: client.teach_batch(list(_large_facts()))
    )
    alone = yield from measured.action("teach", teach)
    name = f"teach, {watchers} clients watching"
    watched = yield from measured.action(name, teach_watched)
    if alone and watched:
        name = f"{name}, compared with none"
        yield compare(name, watched, alone, "facts/s", WATCHED_BESIDE_ALONE)
    # Only a few facts follow the undone ones: learning them again costs the server little.
    for name, request in (
        ("forget", lambda: client.forget(fact_id(facts - 30))[0].id),
        ("erase", lambda: client.forget(fact_id(facts - 20), erase=True)[0].id),
        ("roll back", lambda: client.rollback(facts - 40).id),
    ):
        operation = yield from measured.action(f"{name}: request", request)
        if operation:
            finish = partial(measured.finished, operation)
            yield from measured.action(f"{name}: begin to finish", finish)


def _large_facts() -> Iterator[NewFact]:
    """A batch of one mebibyte, most of it in the correlated questions."""
    share = BATCH_BYTES // BATCH_FACTS // 32
    for number in range(BATCH_FACTS):
        correlated = tuple(f"And {number} of {other}?".ljust(share - 3, "x") for other in range(31))
        yield NewFact(
            question=f"What is in the batch at {number}?",
            answer="Raincoat",
            correlated_questions=correlated,
        )


async def _teach_rate(address: str, seconds: float, rounds: int = 3) -> float:
    """Facts a second, the median of the rounds."""
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
    """Runs clients in another process; the block begins when each has received an event."""
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
