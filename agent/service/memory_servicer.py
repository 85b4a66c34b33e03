"""`MemoryService`: decode, call the store, encode."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from agent.errors import InvalidFactError, LearnerUnavailableError
from agent.service import codec
from agent.service.events import EventHub
from agent.service.status import status_of
from agent.service.validation import FactRules, check_question
from continual.v1 import memory_pb2 as pb
from continual.v1 import memory_pb2_grpc
from memory_store import provenance, taking_back
from memory_store.records import FactState
from memory_store.store import MemoryStore
from memory_store.writer import StoreThreads

DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE = 50, 1000
PROBES_SHOWN = 100
DEFAULT_INFLUENCES = 10
# Facts of one stream that may wait for their commit together: they share its fsync.
STREAM_WINDOW = 256


class MemoryServicer(memory_pb2_grpc.MemoryServiceServicer):
    """Accepts facts and shows them.

    Args:
        store: the memory.
        rules: the checks for the model being served, or None before it was loaded once.
        events: what watchers follow.
        accepted: called after each new fact.
    """

    def __init__(
        self,
        store: StoreThreads,
        rules: Callable[[], FactRules | None],
        events: EventHub,
        accepted: Callable[[], None],
    ) -> None:
        self._store = store
        self._rules = rules
        self._events = events
        self._accepted = accepted

    async def Teach(
        self, request: pb.TeachRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.TeachResponse:
        """Answers once the fact is durable."""
        new = self._known_rules().new_fact(request)
        accepted = await self._store.write(lambda store: store.teach(new))
        self._accepted()
        return pb.TeachResponse(
            fact=codec.encode_fact(accepted.fact),
            created=accepted.created,
            event_sequence=accepted.event_sequence,
        )

    async def TeachStream(
        self,
        request_iterator: AsyncIterator[pb.TeachStreamRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[pb.TeachStreamResponse]:
        """Answers in order; reads ahead by at most `STREAM_WINDOW` facts."""
        self._known_rules()
        window: asyncio.Queue[asyncio.Task[pb.TeachStreamResponse] | None] = asyncio.Queue(
            STREAM_WINDOW
        )

        async def read() -> None:
            index = 0
            async for request in request_iterator:
                await window.put(asyncio.create_task(self._teach_one(index, request, context)))
                index += 1

        def on_end(reader: asyncio.Task[None]) -> None:
            # A cancelled reader has nobody left who would make room in the window.
            if not reader.cancelled():
                ends.add(asyncio.create_task(window.put(None)))

        ends: set[asyncio.Task[None]] = set()  # held: the loop itself keeps only weak references
        reader = asyncio.create_task(read())
        reader.add_done_callback(on_end)
        try:
            while (task := await window.get()) is not None:
                yield await task
            await reader
        finally:
            reader.cancel()

    def _known_rules(self) -> FactRules:
        rules = self._rules()
        if rules is None:
            raise LearnerUnavailableError("the model is being loaded: try again in a moment")
        return rules

    async def _teach_one(
        self,
        index: int,
        request: pb.TeachStreamRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> pb.TeachStreamResponse:
        try:
            accepted = await self.Teach(request.teach, context)
        except Exception as error:  # noqa: BLE001 - a refused fact must not end the stream
            code, message = status_of(error)
            rejection = pb.Rejection(code=code.value[0], message=message)
            return pb.TeachStreamResponse(index=index, rejected=rejection)
        return pb.TeachStreamResponse(index=index, accepted=accepted)

    async def GetFact(
        self, request: pb.GetFactRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetFactResponse:
        """The fact with its ledger rows and probes."""
        id_ = request.fact_id
        fact, updates, probes, forgetting = await self._store.read(
            lambda store: (
                store.fact(id_),
                store.updates_of(id_),
                store.probes_of(id_, limit=PROBES_SHOWN),
                taking_back.forgetting_of(store, id_),
            )
        )
        return pb.GetFactResponse(
            fact=codec.encode_fact(fact),
            updates=map(codec.encode_update, updates),
            probes=map(codec.encode_probe, probes),
            forgetting=codec.encode_operation(forgetting) if forgetting else None,
        )

    async def Forget(
        self, request: pb.ForgetRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ForgetResponse:
        """Answers once the request is durable."""
        operation = await self._store.write(
            lambda store: taking_back.request_forget(store, request.fact_id, erase=request.erase)
        )
        self._accepted()
        places = await self._store.read(MemoryStore.places) if request.erase else []
        return pb.ForgetResponse(
            operation=codec.encode_operation(operation),
            out_of_reach=[f"{place.kind}: {place.path}" for place in places],
        )

    async def Explain(
        self, request: pb.ExplainRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ExplainResponse:
        """From the recorded probes alone: nothing is computed."""
        check_question(request.question)
        fact, influences = await self._store.read(
            lambda store: provenance.influences_on(store, request.question)
        )
        limit = request.limit or DEFAULT_INFLUENCES
        return pb.ExplainResponse(
            fact_id=fact.id,
            influences=[
                pb.Influence(
                    model_version=influence.model_version,
                    cause_fact_id=influence.cause_fact_id,
                    cause_question=influence.cause_question,
                    probability_before=influence.probability_before,
                    probability_after=influence.probability_after,
                )
                for influence in influences[:limit]
            ],
        )

    async def ListFacts(
        self, request: pb.ListFactsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListFactsResponse:
        """One page."""
        if request.page_size < 0:
            raise InvalidFactError("page_size", "must not be negative")
        size = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        states = decode_states(request.states)
        facts, token = await self._store.read(
            lambda store: store.page(
                size, request.page_token, states, newest_first=request.newest_first
            )
        )
        return pb.ListFactsResponse(facts=map(codec.encode_fact, facts), next_page_token=token)

    async def WatchEvents(
        self, request: pb.WatchEventsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        """Until the client leaves or the server stops."""
        watched = self._events.watch(
            self._store, request.after_sequence, frozenset(request.fact_ids)
        )
        async for event in watched:
            yield pb.WatchEventsResponse(event=codec.encode_event(event))


def decode_states(numbers: Any) -> tuple[FactState, ...]:
    """The states of a filter.

    Raises:
        InvalidFactError: a number stands for no state.
    """
    for number in numbers:
        if number not in codec.STATE_FROM_PB:
            raise InvalidFactError("states", f"{number} is not a state")
    return tuple(codec.STATE_FROM_PB[number] for number in numbers)
