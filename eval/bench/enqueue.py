"""Benchmark `enqueue`: how fast facts are accepted, compared with a ping and with other baselines.

Each server is a new process with the model `tiny`. Client and server share the processor, as on the
machine that the floors were set for. What is compared is measured in alternating small rounds, so
that other load on the machine affects both sides; the figures are medians.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agent.addresses import proxy_options
from continual.v1 import memory_pb2 as pb
from continual.v1 import memory_pb2_grpc
from eval.bench.closed_loop import Load, closed_loop
from eval.bench.figure import Figure, compare
from eval.bench.server_process import BenchmarkServer, benchmark_server
from memory_store import paging
from memory_store.facts import count_by_state
from memory_store.store import MemoryStore
from memory_store.vocabulary import NewFact

IN_FLIGHT = 32
BATCH = 1000
SYNC_SECONDS = 0.004
FEW_FACTS = 1000

# What the ratios must reach; see docs/design.md.
TEACH_BESIDE_PING = 0.75
ONE_IN_FLIGHT_P99_MS = 1.5
BATCHED_FACTS = 20_000.0
GROUP_COMMIT = 10.0
BUSY_BESIDE_IDLE = 0.7
MANY_BESIDE_FEW = 0.5  # takes at most twice as long

_numbers = itertools.count()


def measure_enqueue(
    say: Callable[[str], None], folder: Path | None, facts: int, rounds: int, calls: int
) -> list[Figure]:
    """Measures all of it.

    Args:
        say: called with what is measured next.
        folder: where memories are made, and removed again; None: the system's temporary folder.
        facts: how many are stored to see whether size costs time.
        rounds: of each comparison.
        calls: in each round.

    Raises:
        AgentError: a server does not start.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        parent = Path(name)
        say("syncs of the disk")
        figures = [_disk(parent)]
        with benchmark_server(parent / "server") as server:
            say("Teach compared with Ping, one by one, and in batches")
            with server.learner_stopped():
                figures += asyncio.run(_accepting(server, rounds, calls))
            say("Teach while the learner is busy")
            figures.append(asyncio.run(_busy(server, rounds, calls)))
        say("group commit on a slow disk")
        figures.append(_group_commit(parent, calls))
        say(f"{facts} facts compared with {FEW_FACTS}")
        figures += _sizes(parent, facts)
    return figures


def _disk(folder: Path) -> Figure:
    """How long an fsync takes here: no answer can be faster, and slow ones are due to the disk."""
    seconds = []
    with (folder / "synced").open("wb") as file:
        for _ in range(200):
            file.write(bytes(4096))
            file.flush()
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            seconds.append(time.perf_counter() - started)
    load = Load(rate=0.0, latencies=sorted(seconds))
    p99, p50 = load.quantile(0.99), load.quantile(0.5)
    return compare("sync of the disk, p99 beside p50", p99, p50, "ms")


# -- Through a server ------------------------------------------------------------------------


class _Calls:
    """Stubs, and requests for them; each fact is new."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        # The generated types do not distinguish asyncio's stubs from blocking ones.
        memory = memory_pb2_grpc.MemoryServiceStub(channel)
        health = health_pb2_grpc.HealthStub(channel)
        self._teach: Callable[[pb.TeachRequest], Awaitable[object]] = memory.Teach
        self._batch: Callable[[pb.TeachBatchRequest], Awaitable[object]] = memory.TeachBatch
        self._ping: Callable[[health_pb2.HealthCheckRequest], Awaitable[object]] = health.Check

    async def ping(self, calls: int, in_flight: int) -> Load:
        request = health_pb2.HealthCheckRequest()
        return await closed_loop(self._ping, [request] * calls, in_flight)

    async def teach(self, calls: int, in_flight: int) -> Load:
        return await closed_loop(self._teach, new_requests(calls), in_flight)

    async def teach_batches(self, batches: int) -> Load:
        """Keeps two in flight: one is checked while the other is written."""
        requests = [pb.TeachBatchRequest(facts=new_requests(BATCH)) for _ in range(batches)]
        return await closed_loop(self._batch, requests, 2)


def new_requests(count: int) -> list[pb.TeachRequest]:
    """Facts that are not taught yet, each with a new id."""
    return [
        pb.TeachRequest(
            question=f"What is the hottest month in Kyzara{number}?",
            answer="Raincoat",
            request_id=f"00000000-0000-4000-8000-{number:012x}",
        )
        for number in itertools.islice(_numbers, count)
    ]


@asynccontextmanager
async def _connected(server: BenchmarkServer) -> AsyncIterator[_Calls]:
    options = list(proxy_options(server.address, tls=False))
    async with grpc.aio.insecure_channel(server.address, options=options) as channel:
        calls = _Calls(channel)
        await calls.ping(200, IN_FLIGHT)
        await calls.teach(200, IN_FLIGHT)
        yield calls


async def _accepting(server: BenchmarkServer, rounds: int, count: int) -> list[Figure]:
    """With a stopped learner."""
    async with _connected(server) as calls:
        pings, taught, batched = [], [], []
        for _ in range(rounds):
            pings.append((await calls.ping(count, IN_FLIGHT)).rate)
            taught.append((await calls.teach(count, IN_FLIGHT)).rate)
        one = await calls.teach(2 * count, 1)
        for _ in range(rounds):
            batched.append(BATCH * (await calls.teach_batches(4)).rate)
    ping, teach = statistics.median(pings), statistics.median(taught)
    return [
        compare(
            f"Teach beside Ping, {IN_FLIGHT} in flight", teach, ping, "calls/s", TEACH_BESIDE_PING
        ),
        *(
            compare(
                f"Teach, one in flight, p{percent}",
                *(one.quantile(percent / 100), ONE_IN_FLIGHT_P99_MS, "ms", floor),
            )
            for percent, floor in ((50, None), (99, 1.0))
        ),
        compare(
            f"TeachBatch of {BATCH}", statistics.median(batched), BATCHED_FACTS, "facts/s", 1.0
        ),
    ]


async def _busy(server: BenchmarkServer, rounds: int, count: int) -> Figure:
    """With a learner that alternately learns and is stopped."""
    idle: list[float] = []
    busy: list[float] = []
    async with _connected(server) as calls:
        for _ in range(rounds):
            for rates, learner in ((busy, nullcontext()), (idle, server.learner_stopped())):
                with learner:
                    rates.append((await calls.teach(count, IN_FLIGHT)).rate)
    return compare(
        "Teach while learning, beside an idle learner",
        *(statistics.median(busy), statistics.median(idle), "calls/s", BUSY_BESIDE_IDLE),
    )


def _group_commit(folder: Path, count: int) -> Figure:
    """Two servers on a disk with slow syncs: one as it is, one with a commit for each call."""

    async def rate(server: BenchmarkServer, calls: int) -> float:
        async with _connected(server) as connected:
            return (await connected.teach(calls, IN_FLIGHT)).rate

    def on_slow_disk(name: str, calls: int, **environment: str) -> float:
        with (
            benchmark_server(
                folder / name,
                ("-m", "eval.bench.slow_disk"),
                {"BENCH_SYNC_SECONDS": str(SYNC_SECONDS), **environment},
            ) as server,
            server.learner_stopped(),
        ):
            return asyncio.run(rate(server, calls))

    return compare(
        f"group commit beside a commit a call, syncs {1000 * SYNC_SECONDS:.0f} ms slower",
        on_slow_disk("together", 4 * count),
        on_slow_disk("each", count, BENCH_COMMIT_EACH="1"),
        "calls/s",
        GROUP_COMMIT,
    )


# -- In the store ----------------------------------------------------------------------------


def _sizes(folder: Path, facts: int) -> list[Figure]:
    """How long an operation takes among few facts and among many."""
    with _stored(folder / "few.db", FEW_FACTS) as few, _stored(folder / "many.db", facts) as many:
        return [
            compare(
                f"{name}, {facts} facts beside {FEW_FACTS}",
                *(_milliseconds(operation, many), _milliseconds(operation, few), "ms"),
                MANY_BESIDE_FEW,
            )
            for name, operation in (("list", _list), ("claim", _claim), ("status", _status))
        ]


@contextmanager
def _stored(path: Path, facts: int) -> Iterator[MemoryStore]:
    with MemoryStore.open(path) as store:
        for start in range(0, facts, BATCH):
            store.teach_many(
                [
                    NewFact(question=f"What is found at {number}?", answer="Piano")
                    for number in range(start, min(start + BATCH, facts))
                ]
            )
            store.connection.shorten_log(1000)
        yield store


def _milliseconds(operation: Callable[[MemoryStore], object], store: MemoryStore) -> float:
    seconds = []
    for _ in range(200):
        started = time.perf_counter()
        operation(store)
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


def _list(store: MemoryStore) -> Sequence[object]:
    """Reads the second page of a list: the token of the first page says where it begins."""
    _, token = paging.page(store, 50)
    return paging.page(store, 50, token)[0]


def _claim(store: MemoryStore) -> None:
    """Takes a fact and gives it back; both reach the disk."""
    fact = store.claim()
    assert fact is not None
    store.release(fact.id)


def _status(store: MemoryStore) -> object:
    return count_by_state(store.connection), store.model_version(), store.last_event_sequence()
