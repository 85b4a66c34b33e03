"""How fast facts are accepted, beside what the same machine can do at that moment.

Servers of their own, with the model `tiny`; client and server share the processor, as on the
machine that the floors were set for. Everything that is compared is measured in turns, in small
rounds, so that whatever else the machine does falls on both; what is told are medians.
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
from eval.bench.figure import Figure, this_machine
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


def enqueueing(
    say: Callable[[str], None] = lambda what: None,
    folder: Path | None = None,
    facts: int = 1_000_000,
    rounds: int = 9,
    calls: int = 500,
) -> list[Figure]:
    """Measures all of it.

    Args:
        say: told what is being done.
        folder: where memories are made, and removed again; None: the system's temporary folder.
        facts: so many are stored to see whether size costs time.
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
            say("Teach beside Ping, one by one, and in batches")
            with server.learner_stopped():
                figures += asyncio.run(_accepting(server, rounds, calls))
            say("Teach while the learner is busy")
            figures.append(asyncio.run(_busy(server, rounds, calls)))
        say("group commit on a slow disk")
        figures.append(_group_commit(parent, calls))
        say(f"{facts} facts beside {FEW_FACTS}")
        figures += _sizes(parent, facts)
    return figures


def _figure(
    name: str,
    ours: float,
    baseline: float,
    unit: str,
    floor: float | None,
    *,
    less_is_better: bool = False,
) -> Figure:
    return Figure(
        name=name,
        ours=ours,
        baseline=baseline,
        unit=unit,
        ratio=baseline / ours if less_is_better else ours / baseline,
        floor=floor,
        device=this_machine(),
    )


def _disk(folder: Path) -> Figure:
    """What an fsync takes here: no answer can be faster, and a slow one is the disk's."""
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
    return _figure("sync of the disk, p99 beside p50", p99, p50, "ms", None, less_is_better=True)


# -- Through a server ------------------------------------------------------------------------


class _Calls:
    """Stubs, and requests for them; each fact is a new one."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        # Their types do not tell asyncio's stubs from the other.
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
        """Two in flight: one is checked while the other is written."""
        requests = [pb.TeachBatchRequest(facts=new_requests(BATCH)) for _ in range(batches)]
        return await closed_loop(self._batch, requests, 2)


def new_requests(count: int) -> list[pb.TeachRequest]:
    """Facts that nobody has taught yet, with ids of their own."""
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
    """With a learner that stands still."""
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
        _figure(
            f"Teach beside Ping, {IN_FLIGHT} in flight", teach, ping, "calls/s", TEACH_BESIDE_PING
        ),
        *(
            _figure(
                f"Teach, one in flight, p{percent}",
                *(one.quantile(percent / 100), ONE_IN_FLIGHT_P99_MS, "ms", floor),
                less_is_better=True,
            )
            for percent, floor in ((50, None), (99, 1.0))
        ),
        _figure(
            f"TeachBatch of {BATCH}", statistics.median(batched), BATCHED_FACTS, "facts/s", 1.0
        ),
    ]


async def _busy(server: BenchmarkServer, rounds: int, count: int) -> Figure:
    """The learner learns what was taught before, then stands still, then learns again."""
    idle: list[float] = []
    busy: list[float] = []
    async with _connected(server) as calls:
        for _ in range(rounds):
            for rates, standing in ((busy, nullcontext()), (idle, server.learner_stopped())):
                with standing:
                    rates.append((await calls.teach(count, IN_FLIGHT)).rate)
    return _figure(
        "Teach while learning, beside an idle learner",
        *(statistics.median(busy), statistics.median(idle), "calls/s", BUSY_BESIDE_IDLE),
    )


def _group_commit(folder: Path, count: int) -> Figure:
    """Two servers on a disk whose syncs are slow: as it is, and with a commit for each call."""

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

    return _figure(
        f"group commit beside a commit a call, syncs {1000 * SYNC_SECONDS:.0f} ms slower",
        on_slow_disk("together", 4 * count),
        on_slow_disk("each", count, BENCH_COMMIT_EACH="1"),
        "calls/s",
        GROUP_COMMIT,
    )


# -- In the store ----------------------------------------------------------------------------


def _sizes(folder: Path, facts: int) -> list[Figure]:
    """What an operation takes among few facts and among many."""
    with _stored(folder / "few.db", FEW_FACTS) as few, _stored(folder / "many.db", facts) as many:
        return [
            _figure(
                f"{name}, {facts} facts beside {FEW_FACTS}",
                *(_milliseconds(operation, many), _milliseconds(operation, few), "ms"),
                MANY_BESIDE_FEW,
                less_is_better=True,
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
    """The second page of a list: the first tells where it begins."""
    _, token = paging.page(store, 50)
    return paging.page(store, 50, token)[0]


def _claim(store: MemoryStore) -> None:
    """A fact is taken and given back, on disk both times."""
    fact = store.claim()
    assert fact is not None
    store.release(fact.id)


def _status(store: MemoryStore) -> object:
    return count_by_state(store.connection), store.model_version(), store.last_event_sequence()
