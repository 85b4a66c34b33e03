"""`MemoryService`: decodes requests, calls the store, encodes responses."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import grpc

from agent.server.api.events import MAX_TOGETHER, EventHub
from agent.server.api.pacer import Slices
from agent.wire import codec
from agent.wire.error_details import encode_rejection
from agent.wire.mapper import pair
from agent.wire.message_size import PAGE_BYTES, Page, Room, page_size
from agent.wire.rules import check_rules
from agent.wire.status import status_of
from agent.wire.validation import FactRules
from continual.v1 import memory_pb2 as pb
from continual.v1 import memory_pb2_grpc
from memory_store import ledger, operations, paging, probes, provenance, undo
from memory_store.acceptance import Answer
from memory_store.errors import MemoryStoreError, QueueFullError
from memory_store.places import list_places
from memory_store.retry import retry_fact
from memory_store.store import MemoryStore
from memory_store.vocabulary import Accepted, NewFact
from memory_store.writer import StoreThreads

Context = grpc.aio.ServicerContext[Any, Any]
PROBES_SHOWN = 100
DEFAULT_INFLUENCES = 10
# The most facts of one stream that wait for a commit. They share its fsync.
STREAM_WINDOW = 256
# The most facts of all clients that wait for a commit, which limits their memory.
MAX_PENDING = 20_000
# Facts of a batch in one commit. A thousand large ones would delay all other writes.
WRITTEN_TOGETHER = 250

_encode_influence = pair(provenance.Influence, pb.Influence).encode

# A fact of a stream: being written, or refused.
_Pending = asyncio.Future[list[Answer]] | Exception


class Erasures(Protocol):
    """Holds texts outside the database that must be erased; see `LearningLoop`."""

    async def prepare_erase(self) -> None:
        """Called before a text is erased from the database."""
        ...

    def text_erased(self) -> None:
        """Called after a text was erased from the database."""
        ...


class MemoryServicer(memory_pb2_grpc.MemoryServiceServicer):
    """Accepts facts and shows them.

    Args:
        store: the memory.
        rules: returns the current rules for facts, or raises why no fact is accepted.
        events: the events for watchers.
        accepted: called after each new fact.
        traceparent: returns the trace of the current call (W3C); None without one.
        erasures: holds texts outside the database that must be erased too.
    """

    def __init__(
        self,
        store: StoreThreads,
        rules: Callable[[], FactRules],
        events: EventHub,
        accepted: Callable[[], None],
        traceparent: Callable[[], str | None] = lambda: None,
        erasures: Erasures | None = None,
    ) -> None:
        self._store = store
        self._rules = rules
        self._events = events
        self._accepted = accepted
        self._traceparent = traceparent
        self._erasures = erasures
        self._pending = 0
        self._slices = Slices()

    async def Teach(self, request: pb.TeachRequest, context: Context) -> pb.TeachResponse:
        """Answers once the fact is durable."""
        [answer] = await self._teach([await self._new_fact(request)])
        self._accepted()
        return codec.ACCEPTED.encode(_or_raise(answer))

    async def TeachBatch(
        self, request: pb.TeachBatchRequest, context: Context
    ) -> pb.TeachBatchResponse:
        """Validates the facts in slices of the loop's time, and writes them in several commits."""
        checked = await self._slices.run(_checking(self._rules(), request.facts))
        valid = [fact for fact in checked if isinstance(fact, NewFact)]
        written: list[Answer] = []
        for start in range(0, len(valid), WRITTEN_TOGETHER):
            some = valid[start : start + WRITTEN_TOGETHER]
            try:
                written += await self._teach(some)
            except MemoryStoreError as error:
                # Each fact still gets its own result: others may have been written, or refused.
                written += itertools.repeat(error, len(some))
            else:
                self._accepted()
        answers = iter(written)
        results = (next(answers) if isinstance(fact, NewFact) else fact for fact in checked)
        return pb.TeachBatchResponse(results=map(_result, results))

    async def TeachStream(
        self,
        request_iterator: AsyncIterator[pb.TeachStreamRequest],
        context: Context,
    ) -> AsyncIterator[pb.TeachStreamResponse]:
        """Answers in order, and reads at most `STREAM_WINDOW` facts ahead."""
        self._rules()
        window: asyncio.Queue[_Pending | None] = asyncio.Queue(STREAM_WINDOW)

        async def read() -> None:
            async for request in request_iterator:
                await window.put(await self._accept(request.teach))

        def on_end(reader: asyncio.Task[None]) -> None:
            # After a cancellation nobody would make room in the window.
            if not reader.cancelled():
                ends.add(asyncio.create_task(window.put(None)))

        ends: set[asyncio.Task[None]] = set()  # the loop itself only keeps weak references
        reader = asyncio.create_task(read())
        reader.add_done_callback(on_end)
        index = 0
        try:
            while (pending := await window.get()) is not None:
                yield await self._acknowledge(index, pending)
                index += 1
            await reader
        finally:
            reader.cancel()
            while not window.empty():
                left = window.get_nowait()
                if isinstance(left, asyncio.Future):
                    left.cancel()  # nobody awaits the result; the fact is still taught

    def _teach(self, new_facts: Sequence[NewFact]) -> asyncio.Future[list[Answer]]:
        """Queues facts for the next commit. The future fails if too many wait for one."""
        if self._pending + len(new_facts) > MAX_PENDING:
            refused: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
            refused.set_exception(
                QueueFullError(
                    f"{self._pending} facts are being written. Nothing was stored: repeat the"
                    " request later."
                )
            )
            return refused
        if traceparent := self._traceparent():
            new_facts = [replace(new, traceparent=traceparent) for new in new_facts]
        taught = self._store.teach(new_facts)
        self._pending += len(new_facts)

        def settled(_: object) -> None:
            self._pending -= len(new_facts)

        taught.add_done_callback(settled)
        # A caller that leaves only cancels its own wait. Facts count until they are written.
        return asyncio.shield(taught)

    async def _new_fact(self, request: pb.TeachRequest) -> NewFact:
        """Makes a valid fact of a request. A long one is validated in slices of the loop's time."""
        rules = self._rules()
        if rules.is_quick(request):
            return rules.new_fact(request)
        return await self._slices.run(rules.checking(request))

    async def _accept(self, request: pb.TeachRequest) -> _Pending:
        try:
            check_rules(request)
            return self._teach([await self._new_fact(request)])
        except Exception as error:  # noqa: BLE001 - a refused fact must not end the stream
            return error

    async def _acknowledge(self, index: int, pending: _Pending) -> pb.TeachStreamResponse:
        try:
            if isinstance(pending, Exception):
                raise pending
            [answer] = await pending
            accepted = codec.ACCEPTED.encode(_or_raise(answer))
        except Exception as error:  # noqa: BLE001 - as above
            rejected = encode_rejection(status_of(error))
            return pb.TeachStreamResponse(index=index, rejected=rejected)
        self._accepted()
        return pb.TeachStreamResponse(index=index, accepted=accepted)

    async def GetFact(self, request: pb.GetFactRequest, context: Context) -> pb.GetFactResponse:
        """Returns the fact with its ledger rows and probes."""
        id_ = request.fact_id
        fact, updates, probed, forgetting = await self._store.read(
            lambda store: (
                store.fact(id_),
                ledger.of_fact(store.connection, id_),
                probes.of_fact(store.connection, id_, limit=PROBES_SHOWN),
                operations.newest_of_fact(store, id_),
            )
        )
        # The newest of each. Both grow with every review of the fact.
        kept = Room(PAGE_BYTES // 2).fitting(map(codec.UPDATE.encode, reversed(updates)))
        shown = Room(PAGE_BYTES // 2).fitting(map(codec.PROBE.encode, probed))
        return pb.GetFactResponse(
            fact=codec.FACT.encode(fact),
            updates=reversed(kept),
            probes=shown,
            forgetting=codec.encode_operation(forgetting) if forgetting else None,
            left_out_updates=len(updates) - len(kept),
            left_out_probes=len(probed) - len(shown),
        )

    async def Forget(self, request: pb.ForgetRequest, context: Context) -> pb.ForgetResponse:
        """Answers once the request is durable."""
        erasures = self._erasures if request.erase else None
        if erasures is not None:
            await erasures.prepare_erase()
        operation = await self._store.write(
            lambda store: undo.request_forget(store, request.fact_id, erase=request.erase)
        )
        self._accepted()
        if request.erase:
            self._events.forget_kept()
        if erasures is not None:
            erasures.text_erased()
        places = await self._store.read(list_places) if request.erase else []
        return pb.ForgetResponse(
            operation=codec.encode_operation(operation),
            out_of_reach=[f"{place.kind}: {place.path}" for place in places],
        )

    async def RetryFact(
        self, request: pb.RetryFactRequest, context: Context
    ) -> pb.RetryFactResponse:
        """Answers once the fact is queued again."""
        fact, sequence = await self._store.write(partial(retry_fact, fact_id=request.fact_id))
        self._accepted()
        return pb.RetryFactResponse(fact=codec.FACT.encode(fact), event_sequence=sequence)

    async def Explain(self, request: pb.ExplainRequest, context: Context) -> pb.ExplainResponse:
        """Answers from the recorded probes; the model is not asked."""
        fact, influences = await self._store.read(
            lambda store: provenance.influences_on(store, request.question)
        )
        limit = request.limit or DEFAULT_INFLUENCES
        return pb.ExplainResponse(
            fact_id=fact.id, influences=Room().fitting(map(_encode_influence, influences[:limit]))
        )

    async def ListFacts(
        self, request: pb.ListFactsRequest, context: Context
    ) -> pb.ListFactsResponse:
        """Returns one page of facts."""
        size = page_size(request.page_size)
        states = tuple(codec.STATE_FROM_PB[number] for number in request.states)

        def page(store: MemoryStore) -> pb.ListFactsResponse:
            facts = Page(codec.FACT.encode)
            order = request.newest_first
            _, token = paging.page(
                store, size, request.page_token, states, newest_first=order, fits=facts.fits
            )
            return pb.ListFactsResponse(facts=facts.messages, next_page_token=token)

        # Encoded in the store thread as well: a large page would block the event loop.
        return await self._store.read(page)

    async def WatchEvents(
        self, request: pb.WatchEventsRequest, context: Context
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        """Sends events until the client leaves or the server stops."""
        together = MAX_TOGETHER if request.together else 1
        watched = self._events.watch(
            self._store, request.after_sequence, request.fact_ids, together
        )
        async with aclosing(watched):
            async for happened in watched:
                messages = [each.message for each in happened]
                if request.together:
                    yield pb.WatchEventsResponse(events=messages)
                else:
                    yield pb.WatchEventsResponse(event=messages[0])


def _checking(
    rules: FactRules, requests: Iterable[pb.TeachRequest]
) -> Generator[None, None, list[NewFact | Exception]]:
    """Validates the facts of a batch one by one. Yields after each, and within large ones."""
    checked: list[NewFact | Exception] = []
    for request in requests:
        try:
            check_rules(request)
            checked.append((yield from rules.checking(request)))
        except Exception as error:  # noqa: BLE001 - a refused fact must not touch the others
            checked.append(error)
        yield
    return checked


def _or_raise(answer: Answer) -> Accepted:
    if isinstance(answer, MemoryStoreError):
        raise answer
    return answer


def _result(answer: Answer | Exception) -> pb.TeachResult:
    if not isinstance(answer, Accepted):
        rejection = encode_rejection(status_of(answer))
        return pb.TeachResult(status=pb.TEACH_STATUS_REFUSED, rejection=rejection)
    return pb.TeachResult(
        status=pb.TEACH_STATUS_ACCEPTED if answer.created else pb.TEACH_STATUS_DUPLICATE,
        fact_id=answer.fact.id,
        repeated_request=answer.repeated,
    )
