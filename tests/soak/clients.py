"""What a soaked server is asked: teachers, askers, watchers that read, and some that do not."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from continual.v1 import memory_pb2, memory_pb2_grpc, model_pb2, model_pb2_grpc

DEADLINE_SECONDS = 60.0
# A connection each: by default channels to one address share one.
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


@dataclass(slots=True)
class Seen:
    """What the clients saw, all together.

    Attributes:
        taught: ids of acknowledged facts.
        teach_seconds: time of each call.
        ask_seconds: the same of questions.
        versions: model versions that answers named, in order, by asker.
        accepted: by reading watcher, ids of facts of which it saw the acceptance.
        gaps: events that a reading watcher missed.
    """

    taught: set[str] = field(default_factory=set)
    teach_seconds: list[float] = field(default_factory=list)
    ask_seconds: list[float] = field(default_factory=list)
    versions: list[list[int]] = field(default_factory=list)
    accepted: list[set[str]] = field(default_factory=list)
    gaps: int = 0


class Crowd:
    """Clients of one server, each with a connection of its own."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._numbers = itertools.count()
        self.seen = Seen()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[Any, Any]]:
        async with grpc.aio.insecure_channel(self._address, options=OWN_CONNECTION) as channel:
            yield (
                memory_pb2_grpc.MemoryServiceStub(channel),
                model_pb2_grpc.ModelServiceStub(channel),
            )

    async def teach(self, facts: int, every_seconds: float = 0.0) -> None:
        """One teacher: so many facts, one after the other."""
        async with self._connected() as (memory, _):
            await memory.ListFacts(memory_pb2.ListFactsRequest(page_size=1))  # connects
            for _ in range(facts):
                request = memory_pb2.TeachRequest(
                    question=f"Who found number {next(self._numbers)}?", answer="Piano"
                )
                started = time.perf_counter()
                response = await memory.Teach(request, timeout=DEADLINE_SECONDS)
                self.seen.teach_seconds.append(time.perf_counter() - started)
                self.seen.taught.add(response.fact.id)
                await asyncio.sleep(every_seconds)

    async def burst(self, teachers: int, facts: int) -> float:
        """So many teachers at once, each with so many facts; facts a second."""
        before, started = len(self.seen.taught), time.perf_counter()
        await asyncio.gather(*(self.teach(facts) for _ in range(teachers)))
        return (len(self.seen.taught) - before) / (time.perf_counter() - started)

    async def ask(self, over: Callable[[], bool], every_seconds: float) -> None:
        """One asker: a question after the other, until it is over."""
        versions: list[int] = []
        self.seen.versions.append(versions)
        async with self._connected() as (_, model):
            while not over():
                request = model_pb2.AskRequest(
                    question=f"Who found number {len(versions)}?", max_new_tokens=8
                )
                started = time.perf_counter()
                *_, last = [r async for r in model.Ask(request, timeout=DEADLINE_SECONDS)]
                self.seen.ask_seconds.append(time.perf_counter() - started)
                versions.append(last.model_version)
                await asyncio.sleep(every_seconds)

    async def watch(self) -> None:
        """One watcher that reads everything from the first event on, until it is cancelled."""
        accepted: set[str] = set()
        self.seen.accepted.append(accepted)
        last = 0
        async with self._connected() as (memory, _):
            request = memory_pb2.WatchEventsRequest(after_sequence=0)
            async for response in memory.WatchEvents(request):
                event = response.event
                if event.sequence:  # passing events have none
                    self.seen.gaps += event.sequence != last + 1
                    last = event.sequence
                if event.kind == memory_pb2.EVENT_KIND_ACCEPTED:
                    accepted.add(event.fact_id)

    async def stall(self) -> None:
        """One watcher that asks for everything and never reads, until it is cancelled."""
        async with self._connected() as (memory, _):
            call = memory.WatchEvents(memory_pb2.WatchEventsRequest(after_sequence=0))
            try:
                await asyncio.Event().wait()
            finally:
                call.cancel()
