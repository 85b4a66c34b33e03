"""The Python client for asyncio: the same methods, records and errors as those of `Client`.

async with AsyncClient("127.0.0.1:50051") as client:
    fact = (await client.teach("What is the hottest month in Kyzara?", "Raincoat")).fact
    await client.wait([fact.id])
    print((await client.ask("What is the hottest month in Kyzara?")).answer)
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Sequence,
)
from contextlib import aclosing
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agent.errors import AgentError, ServerUnreachableError
from agent.service import codec
from agent.service.channel import ANYBODY, Access, open_async_channel
from agent.service.client import (
    ANSWER_DEADLINE_SECONDS,
    CONNECT_SECONDS,
    COPY_DEADLINE_SECONDS,
    DEADLINE_SECONDS,
    MEMORY_SERVICE,
    MODEL_SERVICE,
    OPERATION_ENDS,
    PROBE_DEADLINE_SECONDS,
    SETTLED,
    STOPPING_SECONDS,
    WATCH_DEADLINE_SECONDS,
    OperationStatus,
    Rejected,
    Reply,
    RequestError,
    Score,
    Status,
    Taught,
    checked_utf8,
    decode_batch,
    decode_compaction,
    decode_events,
    decode_operation,
    decode_rejected,
    decode_reply,
    decode_retention,
    decode_score,
    decode_status,
    encode_new,
    in_our_words,
)
from agent.service.patience import Patience
from agent.service.results import Explanation, Snapshot, decode_explanation, decode_snapshot
from agent.service.starting import POLL_SECONDS, START_SECONDS, Start, not_ready
from continual.v1 import admin_pb2, admin_pb2_grpc, memory_pb2_grpc, model_pb2, model_pb2_grpc
from continual.v1 import memory_pb2 as pb
from memory_store.vocabulary import (
    Accepted,
    Compaction,
    Event,
    EventKind,
    Fact,
    FactRetention,
    FactState,
    NewFact,
    Policy,
    Probe,
    Retention,
    Update,
)


class AsyncClient:
    """A connection to one server, for the event loop it was made in; see `Client`.

    Methods that give several things are asynchronous iterators. A task that is cancelled cancels
    its call; what was accepted before stays accepted.

    Args:
        address: HOST:PORT.
        access: how it is let in; by default without TLS and token.

    Raises:
        ConfigError: the files that `access` names cannot be used.
    """

    def __init__(self, address: str, access: Access = ANYBODY) -> None:
        self.address = address
        self._channel, self._metadata = open_async_channel(address, access)
        # The stubs' types do not tell asyncio's calls from the others.
        self._memory: Any = memory_pb2_grpc.MemoryServiceStub(self._channel)
        self._model: Any = model_pb2_grpc.ModelServiceStub(self._channel)
        self._admin: Any = admin_pb2_grpc.AdminServiceStub(self._channel)
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection."""
        await self._channel.close(None)

    async def wait_accepting(
        self,
        timeout_seconds: float = START_SECONDS,
        on_wait: Callable[[AgentError], None] = lambda reason: None,
    ) -> Status:
        """Returns once a server accepts facts; see `Client.wait_accepting`."""
        return await self._started(MEMORY_SERVICE, Start(timeout_seconds, on_wait))

    async def wait_ready(
        self,
        timeout_seconds: float = START_SECONDS,
        on_wait: Callable[[AgentError], None] = lambda reason: None,
    ) -> Status:
        """Returns once the model can be asked; see `Client.wait_accepting`."""
        return await self._started(MODEL_SERVICE, Start(timeout_seconds, on_wait))

    async def _started(self, service: str, start: Start) -> Status:
        asked = health_pb2.HealthCheckRequest(service=service)
        while True:
            try:
                health = await self._call(self._health.Check, asked, DEADLINE_SECONDS)
                status = await self.status()
            except (ServerUnreachableError, RequestError) as error:
                start.blocked_by(error)
            else:
                if health.status == health_pb2.HealthCheckResponse.SERVING:
                    return status
                start.blocked_by(not_ready(status.learner, status.learner_message))
            await asyncio.sleep(POLL_SECONDS)

    # -- Teaching ----------------------------------------------------------------------------

    async def teach(
        self,
        question: str,
        answer: str,
        *,
        correlated_questions: Sequence[str] = (),
        policy: Policy | None = None,
        request_id: str | None = None,
        fact_id: str | None = None,
    ) -> Accepted:
        """Hands in one fact; returns once it is durable, before it is learned."""
        new = NewFact(
            question=question,
            answer=answer,
            correlated_questions=tuple(correlated_questions),
            policy=policy,
            request_id=request_id,
            fact_id=fact_id,
        )
        return await self.teach_fact(new)

    async def teach_fact(self, new: NewFact) -> Accepted:
        """Hands in one fact; see `teach`."""
        return codec.decode_accepted(
            await self._call(self._memory.Teach, encode_new(new), DEADLINE_SECONDS)
        )

    async def teach_many(
        self, facts: Iterable[NewFact] | AsyncIterable[NewFact]
    ) -> AsyncIterator[Accepted | Rejected]:
        """Hands in many facts over one call; yields what became of each, in order."""

        async def requests() -> AsyncIterator[pb.TeachStreamRequest]:
            if isinstance(facts, AsyncIterable):
                async for new in facts:
                    yield pb.TeachStreamRequest(teach=encode_new(new))
            else:
                for new in facts:
                    yield pb.TeachStreamRequest(teach=encode_new(new))

        stream = self._stream(self._memory.TeachStream, requests(), COPY_DEADLINE_SECONDS)
        async for response in stream:
            if response.HasField("accepted"):
                yield codec.decode_accepted(response.accepted)
            else:
                yield decode_rejected(response.index, response.rejected)

    async def teach_batch(self, facts: Sequence[NewFact]) -> list[Taught | Rejected]:
        """Hands in up to 1,000 facts at once, the fastest way; tells what became of each."""
        request = pb.TeachBatchRequest(facts=map(encode_new, facts))
        return decode_batch(await self._call(self._memory.TeachBatch, request, DEADLINE_SECONDS))

    async def wait(
        self, fact_ids: Iterable[str], *, timeout: float | None = None
    ) -> dict[str, Fact]:
        """Returns the facts by id once each is settled; see `settle`."""
        return {fact.id: fact async for fact in self.settle(fact_ids, timeout=timeout)}

    async def settle(
        self, fact_ids: Iterable[str], *, timeout: float | None = None
    ) -> AsyncIterator[Fact]:
        """Yields each fact as soon as it is settled: learned, known, resisted, ...

        Raises:
            WaitTimeoutError: not all are after `timeout` seconds; those that are were yielded.
        """
        patience = Patience(timeout)
        # The events' position is taken before the facts are looked at, so none is missed.
        after_sequence = (await self.status()).event_sequence
        waiting = set()
        for fact_id in dict.fromkeys(fact_ids):
            fact = await self.fact(fact_id)
            if fact.state in SETTLED:
                yield fact
            else:
                waiting.add(fact_id)
        while waiting:
            patience.require(waiting)
            watching = self.watch(after_sequence, timeout=patience.left())
            async with aclosing(watching) as events:
                async for event in events:
                    after_sequence = max(after_sequence, event.sequence)
                    if event.fact_id in waiting and event.kind.value in SETTLED:
                        waiting.discard(event.fact_id)
                        yield await self.fact(event.fact_id)
                    if not waiting:
                        break
                else:
                    await asyncio.sleep(STOPPING_SECONDS)

    # -- Asking ------------------------------------------------------------------------------

    async def ask(self, question: str, max_new_tokens: int = 0) -> Reply:
        """The model's whole answer (greedy)."""
        async for piece in self.ask_stream(question, max_new_tokens):
            if isinstance(piece, Reply):
                return piece
        raise AssertionError("an answer ends with the whole")

    async def ask_stream(
        self, question: str, max_new_tokens: int = 0
    ) -> AsyncIterator[str | Reply]:
        """Pieces of the answer as it is made, and last the whole."""
        request = model_pb2.AskRequest(
            question=checked_utf8("question", question), max_new_tokens=max_new_tokens
        )
        async for response in self._stream(self._model.Ask, request, ANSWER_DEADLINE_SECONDS):
            if response.text:
                yield response.text
            else:
                yield decode_reply(response)

    async def score(self, question: str, answer: str) -> Score:
        """How likely the model finds exactly this answer."""
        request = model_pb2.ScoreRequest(
            question=checked_utf8("question", question), answer=checked_utf8("answer", answer)
        )
        response = await self._call(self._model.Score, request, ANSWER_DEADLINE_SECONDS)
        return decode_score(response)

    async def probe(self, fact_ids: Sequence[str] = ()) -> AsyncIterator[tuple[Probe, int, int]]:
        """Probes facts (empty: all that are held); yields probe, facts done, facts in all."""
        request = model_pb2.ProbeRequest(fact_ids=fact_ids)
        async for response in self._stream(self._model.Probe, request, PROBE_DEADLINE_SECONDS):
            yield codec.decode_probe(response.probe), response.facts_done, response.facts_total

    async def status(self) -> Status:
        """What the server serves and how far it is."""
        request = model_pb2.GetStatusRequest()
        return decode_status(await self._call(self._model.GetStatus, request, DEADLINE_SECONDS))

    async def retention(
        self, max_facts: int = 0, max_probes: int = 0
    ) -> tuple[list[FactRetention], list[Retention]]:
        """Held facts with their last probes, and what reviews found by age; nothing is asked."""
        request = model_pb2.GetRetentionRequest(max_facts=max_facts, max_probes=max_probes)
        response = await self._call(self._model.GetRetention, request, DEADLINE_SECONDS)
        return decode_retention(response)

    # -- Looking -----------------------------------------------------------------------------

    async def fact(self, fact_id: str) -> Fact:
        """One fact."""
        return (await self.history(fact_id))[0]

    async def history(self, fact_id: str) -> tuple[Fact, list[Update], list[Probe]]:
        """A fact with its ledger rows, oldest first, and its probes, newest first."""
        response = await self._get_fact(fact_id)
        return (
            codec.decode_fact(response.fact),
            [codec.decode_update(update) for update in response.updates],
            [codec.decode_probe(probe) for probe in response.probes],
        )

    async def facts(
        self,
        states: Collection[FactState] = (),
        page_size: int = 200,
        *,
        newest_first: bool = False,
    ) -> AsyncIterator[Fact]:
        """All facts in these states (empty: any), in the order accepted, page by page."""
        request = pb.ListFactsRequest(
            page_size=page_size,
            states=[codec.STATE_TO_PB[state] for state in states],
            newest_first=newest_first,
        )
        while True:
            response = await self._call(self._memory.ListFacts, request, DEADLINE_SECONDS)
            for fact in response.facts:
                yield codec.decode_fact(fact)
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    async def watch(
        self,
        after_sequence: int = -1,
        fact_ids: Sequence[str] = (),
        *,
        timeout: float | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Events as they happen, until the server stops, or for `timeout` seconds."""
        patience = Patience(timeout)
        if after_sequence < 0:
            after_sequence = (await self.status()).event_sequence
        while True:
            request = pb.WatchEventsRequest(
                after_sequence=after_sequence, fact_ids=fact_ids, together=True
            )
            left = patience.left()
            if left == 0:
                return
            seconds = WATCH_DEADLINE_SECONDS if left is None else min(left, WATCH_DEADLINE_SECONDS)
            stream = self._stream(self._memory.WatchEvents, request, seconds)
            try:
                async for response in stream:
                    for event in decode_events(response):
                        after_sequence = max(after_sequence, event.sequence)
                        yield event
                return
            except RequestError as error:
                if error.code != grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise

    async def explain(self, question: str, limit: int = 10) -> Explanation:
        """Which updates moved the answer to a question most."""
        request = pb.ExplainRequest(question=checked_utf8("question", question), limit=limit)
        return decode_explanation(await self._call(self._memory.Explain, request, DEADLINE_SECONDS))

    async def pause_learning(self, *, paused: bool = True) -> None:
        """Stops facts from being learned, restarts included; or lets them be learned again."""
        if paused:
            request = admin_pb2.PauseLearningRequest()
            await self._call(self._admin.PauseLearning, request, DEADLINE_SECONDS)
        else:
            await self._call(
                self._admin.ResumeLearning, admin_pb2.ResumeLearningRequest(), DEADLINE_SECONDS
            )

    async def retry_fact(self, fact_id: str) -> Fact:
        """Queues a quarantined or resisted fact again; returns once that is durable."""
        request = pb.RetryFactRequest(fact_id=checked_utf8("fact_id", fact_id))
        response = await self._call(self._memory.RetryFact, request, DEADLINE_SECONDS)
        return codec.decode_fact(response.fact)

    # -- Taking back -------------------------------------------------------------------------

    async def forget(
        self, fact_id: str, *, erase: bool = False
    ) -> tuple[OperationStatus, list[str]]:
        """Asks for a fact to be forgotten; returns once the request is durable."""
        request = pb.ForgetRequest(fact_id=checked_utf8("fact_id", fact_id), erase=erase)
        response = await self._call(self._memory.Forget, request, DEADLINE_SECONDS)
        return decode_operation(response.operation), list(response.out_of_reach)

    async def forgetting(self, fact_id: str) -> OperationStatus | None:
        """The last request to forget a fact, with its proof once it is done."""
        response = await self._get_fact(fact_id)
        if not response.HasField("forgetting"):
            return None
        return decode_operation(response.forgetting)

    async def rollback(self, to_version: int) -> OperationStatus:
        """Asks for the weights of an earlier version; see `forget`."""
        request = admin_pb2.RollbackRequest(to_version=to_version)
        response = await self._call(self._admin.Rollback, request, DEADLINE_SECONDS)
        return decode_operation(response.operation)

    async def operation(self, operation_id: int) -> OperationStatus:
        """How far an operation is."""
        request = admin_pb2.GetOperationRequest(id=operation_id)
        response = await self._call(self._admin.GetOperation, request, DEADLINE_SECONDS)
        return decode_operation(response.operation)

    async def operations(self) -> AsyncIterator[OperationStatus]:
        """All operations, newest first."""
        request = admin_pb2.ListOperationsRequest(page_size=200)
        while True:
            response = await self._call(self._admin.ListOperations, request, DEADLINE_SECONDS)
            for message in response.operations:
                yield decode_operation(message)
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    async def cancel_operation(self, operation_id: int) -> OperationStatus:
        """Gives an operation up; see `Client.cancel_operation`."""
        request = admin_pb2.CancelOperationRequest(id=operation_id)
        response = await self._call(self._admin.CancelOperation, request, DEADLINE_SECONDS)
        return decode_operation(response.operation)

    async def wait_operation(
        self,
        operation_id: int,
        progress: Callable[[str], None] = lambda what: None,
        *,
        timeout: float | None = None,
    ) -> OperationStatus:
        """Returns once an operation is over; reports what is being done meanwhile."""
        patience = Patience(timeout)
        # The events' position is taken before the operation is looked at, so no end is missed.
        after_sequence = (await self.status()).event_sequence
        while not (operation := await self.operation(operation_id)).over:
            patience.require([f"operation {operation_id}"])
            watching = self.watch(after_sequence, timeout=patience.left())
            async with aclosing(watching) as events:
                async for event in events:
                    after_sequence = max(after_sequence, event.sequence)
                    if event.kind is EventKind.REBUILDING:
                        progress(event.message)
                    elif event.kind in OPERATION_ENDS:
                        break
                else:
                    await asyncio.sleep(STOPPING_SECONDS)
        return operation

    # -- Files on the server's machine -------------------------------------------------------

    async def snapshots(self) -> list[Snapshot]:
        """Newest first."""
        request = admin_pb2.ListSnapshotsRequest()
        response = await self._call(self._admin.ListSnapshots, request, DEADLINE_SECONDS)
        return [decode_snapshot(snapshot) for snapshot in response.snapshots]

    async def create_snapshot(self) -> Snapshot:
        """Writes one now."""
        request = admin_pb2.CreateSnapshotRequest()
        response = await self._call(self._admin.CreateSnapshot, request, COPY_DEADLINE_SECONDS)
        return decode_snapshot(response.snapshot)

    async def verify_snapshots(self) -> dict[int, str]:
        """What is wrong with each snapshot, by version; empty if nothing."""
        request = admin_pb2.VerifySnapshotsRequest()
        response = await self._call(self._admin.VerifySnapshots, request, COPY_DEADLINE_SECONDS)
        return {verdict.model_version: verdict.error for verdict in response.verdicts}

    async def prune_snapshots(self) -> list[int]:
        """Removes what the rule does not keep; returns the versions removed."""
        request = admin_pb2.PruneSnapshotsRequest()
        response = await self._call(self._admin.PruneSnapshots, request, COPY_DEADLINE_SECONDS)
        return list(response.removed_versions)

    async def compact(self) -> Compaction:
        """Removes old probes and events, and gives free space of the database back."""
        request = admin_pb2.CompactRequest()
        response = await self._call(self._admin.Compact, request, COPY_DEADLINE_SECONDS)
        return decode_compaction(response)

    async def export(self, folder: str) -> int:
        """Writes a Hugging Face checkpoint on the server's machine; returns its version."""
        request = admin_pb2.ExportRequest(folder=checked_utf8("folder", folder))
        response = await self._call(self._admin.Export, request, COPY_DEADLINE_SECONDS)
        return int(response.model_version)

    async def backup(self, folder: str) -> int:
        """Copies database and snapshots on the server's machine; returns the version."""
        request = admin_pb2.BackupRequest(folder=checked_utf8("folder", folder))
        response = await self._call(self._admin.Backup, request, COPY_DEADLINE_SECONDS)
        return int(response.model_version)

    # -- Calls -------------------------------------------------------------------------------

    async def _get_fact(self, fact_id: str) -> pb.GetFactResponse:
        request = pb.GetFactRequest(fact_id=checked_utf8("fact_id", fact_id))
        response: pb.GetFactResponse = await self._call(
            self._memory.GetFact, request, DEADLINE_SECONDS
        )
        return response

    async def _call(self, method: Any, request: Any, deadline_seconds: float) -> Any:
        try:
            return await method(request, timeout=deadline_seconds, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise await self._in_our_words(error) from error

    async def _stream(
        self, method: Any, request: Any, deadline_seconds: float
    ) -> AsyncIterator[Any]:
        call = method(request, timeout=deadline_seconds, metadata=self._metadata)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise await self._in_our_words(error) from error
        finally:
            call.cancel()  # whoever stops reading ends the call; of one that is over, nothing

    async def _in_our_words(self, error: grpc.aio.AioRpcError) -> AgentError:
        connected = True
        if error.code() == grpc.StatusCode.UNAVAILABLE:
            try:
                await asyncio.wait_for(self._channel.channel_ready(), CONNECT_SECONDS)
            except TimeoutError:
                connected = False
        return in_our_words(error, self.address, lambda: connected)
