"""The client. Calls return dataclasses and raise errors of `agent.errors`.

    with Client("127.0.0.1:50051") as client:
        fact = client.teach("What is the hottest month in Kyzara?", "Raincoat").fact
        client.wait([fact.id])
        print(client.ask("What is the hottest month in Kyzara?").answer)

Generated from `async_client.py` by `scripts/generate_client.py`: do not edit.

This module is long because it documents every call once, in one class.
"""

from __future__ import annotations

import time
from collections.abc import (
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import closing
from dataclasses import replace
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2

from agent.client import calls
from agent.client.channel import ANYBODY, Access
from agent.client.connection import Connection
from agent.client.messages import checked_utf8, encode_new, encode_streamed
from agent.client.patience import Patience
from agent.client.server_start import POLL_SECONDS, START_SECONDS, Start, not_ready
from agent.client.types import (
    OPERATION_ENDS,
    SETTLED,
    Explanation,
    OperationStatus,
    Rejected,
    Reply,
    Score,
    Snapshot,
    Status,
    Taught,
)
from agent.errors import AgentError, ServerUnreachableError
from agent.wire import codec
from agent.wire.error_details import RequestError as RequestError
from continual.v1 import admin_pb2, model_pb2
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

# A server that stops ends its streams first: it is not asked again at once.
STOPPING_SECONDS = 0.2


class Client:
    """A connection to one server. Thread-safe. Close it, or use it in a `with` block.

    Every method raises `ServerUnreachableError` if no server answers, and `RequestError` if the
    server refuses.

    Args:
        address: HOST:PORT.
        access: certificates and token; by default neither TLS nor a token.

    Raises:
        ConfigError: the files that `access` names cannot be used.
    """

    def __init__(self, address: str, access: Access = ANYBODY) -> None:
        self.address = address
        self._connection = Connection(address, access)
        self._call = self._connection.call

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def wait_accepting(
        self,
        timeout_seconds: float = START_SECONDS,
        on_wait: Callable[[AgentError], None] = lambda reason: None,
    ) -> Status:
        """Returns once the server accepts facts. It may not have started yet.

        Args:
            timeout_seconds: the longest wait; 0: look once.
            on_wait: called with the reason for the wait, each time it changes.

        Raises:
            ServerUnreachableError: no server answered in time.
            LearnerError: a server answered, but did not accept facts in time.
        """
        return self._started(calls.MEMORY, Start(timeout_seconds, on_wait))

    def wait_ready(
        self,
        timeout_seconds: float = START_SECONDS,
        on_wait: Callable[[AgentError], None] = lambda reason: None,
    ) -> Status:
        """Returns once the model answers questions; see `wait_accepting`."""
        return self._started(calls.MODEL, Start(timeout_seconds, on_wait))

    def _started(self, service: str, start: Start) -> Status:
        request = health_pb2.HealthCheckRequest(service=service)
        while True:
            try:
                serving = self._call(calls.HEALTH, request)
                status = self.status()
            except (ServerUnreachableError, RequestError) as error:
                start.blocked_by(error)
            else:
                if serving:
                    return status
                start.blocked_by(not_ready(status.learner, status.learner_message))
            time.sleep(POLL_SECONDS)

    # -- Teaching ----------------------------------------------------------------------------

    def teach(
        self,
        question: str,
        answer: str,
        *,
        correlated_questions: Sequence[str] = (),
        policy: Policy | None = None,
        request_id: str | None = None,
        fact_id: str | None = None,
    ) -> Accepted:
        """Teaches one fact; returns once it is durable, before it is learned.

        Args:
            question: as it will be asked.
            answer: one line.
            correlated_questions: questions with the same answer that are never trained on: they
                measure transfer.
            policy: how its learning rate is chosen; None: the server's default.
            request_id: a request with the same id teaches once; None: a new id, so that the call
                may be retried.
            fact_id: id of the fact; None: the server chooses one.
        """
        new = NewFact(
            question=question,
            answer=answer,
            correlated_questions=tuple(correlated_questions),
            policy=policy,
            request_id=request_id,
            fact_id=fact_id,
        )
        return self.teach_fact(new)

    def teach_fact(self, new: NewFact) -> Accepted:
        """Teaches one fact; see `teach`."""
        return self._call(calls.TEACH, encode_new(new))

    def teach_many(self, facts: Iterable[NewFact]) -> Iterator[Accepted | Rejected]:
        """Teaches many facts over one call; yields the result of each, in order."""
        return self._connection.exchange(calls.TEACH_STREAM, encode_streamed, facts)

    def teach_batch(self, facts: Sequence[NewFact]) -> list[Taught | Rejected]:
        """Teaches up to 1,000 facts at once, the fastest way; returns the result of each."""
        request = pb.TeachBatchRequest(facts=map(encode_new, facts))
        return self._call(calls.TEACH_BATCH, request)

    def wait(self, fact_ids: Iterable[str], *, timeout: float | None = None) -> dict[str, Fact]:
        """Returns the facts by id once each is settled; see `settle`."""
        return {fact.id: fact for fact in self.settle(fact_ids, timeout=timeout)}

    def settle(self, fact_ids: Iterable[str], *, timeout: float | None = None) -> Iterator[Fact]:
        """Yields each fact as soon as it is settled: learned, known, resisted, ...

        Goes on when the learner restarts; raises `ServerUnreachableError` if the server stops.

        Raises:
            WaitTimeoutError: some are not settled after `timeout` seconds; the others were yielded.
        """
        patience = Patience(timeout)
        # The events' position is taken before the facts are looked at, so none is missed.
        status = self.status()
        after_sequence = status.event_sequence
        waiting = set()
        for fact_id in dict.fromkeys(fact_ids):
            fact = self.fact(fact_id)
            if fact.state in SETTLED:
                yield fact
            else:
                waiting.add(fact_id)
        while waiting:
            patience.require(waiting)
            with closing(self.watch(after_sequence, timeout=patience.left())) as events:
                for event in events:
                    after_sequence = max(after_sequence, event.sequence)
                    if event.fact_id in waiting and event.kind.value in SETTLED:
                        waiting.discard(event.fact_id)
                        yield self.fact(event.fact_id)
                    if not waiting:
                        break
                else:
                    time.sleep(STOPPING_SECONDS)

    def retry_fact(self, fact_id: str) -> Fact:
        """Queues a quarantined or resisted fact again; returns once that is durable."""
        request = pb.RetryFactRequest(fact_id=checked_utf8("fact_id", fact_id))
        return self._call(calls.RETRY_FACT, request)

    def pause_learning(self, *, paused: bool = True) -> None:
        """Pauses learning, also across restarts of the server, or resumes it."""
        if paused:
            self._call(calls.PAUSE_LEARNING, admin_pb2.PauseLearningRequest())
        else:
            self._call(calls.RESUME_LEARNING, admin_pb2.ResumeLearningRequest())

    # -- Asking ------------------------------------------------------------------------------

    def ask(self, question: str, max_new_tokens: int = 0) -> Reply:
        """The model's whole answer (greedy).

        Args:
            question: the question.
            max_new_tokens: limit of the answer's length; 0: the server's default.
        """
        reply = None
        for piece in self.ask_stream(question, max_new_tokens):
            if isinstance(piece, Reply):
                reply = piece
        assert reply is not None, "the last piece is the whole"
        return reply

    def ask_stream(self, question: str, max_new_tokens: int = 0) -> Iterator[str | Reply]:
        """Yields pieces of the answer as they are generated, and last the whole."""
        request = model_pb2.AskRequest(
            question=checked_utf8("question", question), max_new_tokens=max_new_tokens
        )
        return self._connection.stream(calls.ASK, request)

    def score(self, question: str, answer: str) -> Score:
        """The probability that the model gives exactly this answer."""
        request = model_pb2.ScoreRequest(
            question=checked_utf8("question", question), answer=checked_utf8("answer", answer)
        )
        return self._call(calls.SCORE, request)

    def probe(self, fact_ids: Sequence[str] = ()) -> Iterator[tuple[Probe, int, int]]:
        """Probes facts (empty: all that are held); yields probe, facts done, facts in all."""
        return self._connection.stream(calls.PROBE, model_pb2.ProbeRequest(fact_ids=fact_ids))

    # -- Looking -----------------------------------------------------------------------------

    def status(self) -> Status:
        """What the server serves, and how far it is."""
        return self._call(calls.STATUS, model_pb2.GetStatusRequest())

    def retention(
        self, max_facts: int = 0, max_probes: int = 0
    ) -> tuple[list[FactRetention], list[Retention]]:
        """Held facts with their last probes, and what reviews found by age.

        These are stored results: the model is not asked.
        """
        request = model_pb2.GetRetentionRequest(max_facts=max_facts, max_probes=max_probes)
        return self._call(calls.RETENTION, request)

    def fact(self, fact_id: str) -> Fact:
        """One fact."""
        fact, _, _ = self.history(fact_id)
        return fact

    def history(self, fact_id: str) -> tuple[Fact, list[Update], list[Probe]]:
        """A fact with its ledger rows, oldest first, and its probes, newest first."""
        request = pb.GetFactRequest(fact_id=checked_utf8("fact_id", fact_id))
        return self._call(calls.HISTORY, request)

    def facts(
        self,
        states: Collection[FactState] = (),
        page_size: int = 200,
        *,
        newest_first: bool = False,
    ) -> Iterator[Fact]:
        """Yields all facts in these states (empty: any), in the order accepted, page by page."""
        request = pb.ListFactsRequest(
            page_size=page_size,
            states=[codec.STATE_TO_PB[state] for state in states],
            newest_first=newest_first,
        )
        return self._pages(calls.FACTS, request)

    def watch(
        self,
        after_sequence: int = -1,
        fact_ids: Sequence[str] = (),
        *,
        timeout: float | None = None,
    ) -> Generator[Event, None, None]:
        """Yields events as they happen, until the server stops; see `WatchEventsRequest`.

        Args:
            after_sequence: the last event already seen; negative: begin with the next one.
            fact_ids: only events of these facts; empty: all.
            timeout: end after this many seconds too; None: never.
        """
        patience = Patience(timeout)
        if after_sequence < 0:
            status = self.status()
            after_sequence = status.event_sequence
        while (left := patience.left()) != 0:
            request = pb.WatchEventsRequest(
                after_sequence=after_sequence, fact_ids=fact_ids, together=True
            )
            longest = calls.WATCH.deadline_seconds
            seconds = longest if left is None else min(left, longest)
            batches = self._connection.stream(
                replace(calls.WATCH, deadline_seconds=seconds), request
            )
            try:
                with closing(batches):
                    for events in batches:
                        for event in events:
                            after_sequence = max(after_sequence, event.sequence)
                            yield event
                return
            except RequestError as error:
                if error.code != grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise

    def explain(self, question: str, limit: int = 10) -> Explanation:
        """Which updates changed the answer to a question most."""
        request = pb.ExplainRequest(question=checked_utf8("question", question), limit=limit)
        return self._call(calls.EXPLAIN, request)

    # -- Forgetting and rolling back ---------------------------------------------------------

    def forget(self, fact_id: str, *, erase: bool = False) -> tuple[OperationStatus, list[str]]:
        """Requests that a fact is forgotten; returns once the request is durable.

        Args:
            fact_id: of the fact.
            erase: remove its text too.

        Returns:
            The operation (see `wait_operation`), and places out of reach that may hold the text.
        """
        request = pb.ForgetRequest(fact_id=checked_utf8("fact_id", fact_id), erase=erase)
        return self._call(calls.FORGET, request)

    def forgetting(self, fact_id: str) -> OperationStatus | None:
        """The last request to forget a fact, with its proof once it is done."""
        request = pb.GetFactRequest(fact_id=checked_utf8("fact_id", fact_id))
        return self._call(calls.FORGETTING, request)

    def rollback(self, to_version: int) -> OperationStatus:
        """Requests the weights of an earlier version; see `forget`."""
        return self._call(calls.ROLLBACK, admin_pb2.RollbackRequest(to_version=to_version))

    def operation(self, operation_id: int) -> OperationStatus:
        """How far an operation is."""
        return self._call(calls.OPERATION, admin_pb2.GetOperationRequest(id=operation_id))

    def operations(self) -> Iterator[OperationStatus]:
        """Yields all operations, newest first."""
        return self._pages(calls.OPERATIONS, admin_pb2.ListOperationsRequest(page_size=200))

    def cancel_operation(self, operation_id: int) -> OperationStatus:
        """Cancels an operation; what is served stays as it is.

        Raises:
            ConflictError: its result is served already, or it has ended.
        """
        request = admin_pb2.CancelOperationRequest(id=operation_id)
        return self._call(calls.CANCEL_OPERATION, request)

    def wait_operation(
        self,
        operation_id: int,
        progress: Callable[[str], None] = lambda what: None,
        *,
        timeout: float | None = None,
    ) -> OperationStatus:
        """Returns once an operation has ended; calls `progress` with each step of it.

        Raises:
            WaitTimeoutError: it has not ended after `timeout` seconds.
        """
        patience = Patience(timeout)
        # The events' position is taken before the operation is looked at, so no end is missed.
        status = self.status()
        after_sequence = status.event_sequence
        while not (operation := self.operation(operation_id)).over:
            patience.require([f"operation {operation_id}"])
            with closing(self.watch(after_sequence, timeout=patience.left())) as events:
                for event in events:
                    after_sequence = max(after_sequence, event.sequence)
                    if event.kind is EventKind.REBUILDING:
                        progress(event.message)
                    elif event.kind in OPERATION_ENDS:
                        break
                else:
                    time.sleep(STOPPING_SECONDS)
        return operation

    # -- Files on the server's machine -------------------------------------------------------

    def snapshots(self) -> list[Snapshot]:
        """All snapshots, newest first."""
        return self._call(calls.SNAPSHOTS, admin_pb2.ListSnapshotsRequest())

    def create_snapshot(self) -> Snapshot:
        """Writes a snapshot now."""
        return self._call(calls.CREATE_SNAPSHOT, admin_pb2.CreateSnapshotRequest())

    def verify_snapshots(self) -> dict[int, str]:
        """What is wrong with each snapshot, by version; empty if nothing."""
        return self._call(calls.VERIFY_SNAPSHOTS, admin_pb2.VerifySnapshotsRequest())

    def prune_snapshots(self) -> list[int]:
        """Removes snapshots that the server's rule does not keep; returns their versions."""
        return self._call(calls.PRUNE_SNAPSHOTS, admin_pb2.PruneSnapshotsRequest())

    def compact(self) -> Compaction:
        """Removes old probes and events, and returns the database's free space to the disk."""
        return self._call(calls.COMPACT, admin_pb2.CompactRequest())

    def export(self, folder: str) -> int:
        """Writes a Hugging Face checkpoint on the server's machine; returns its version."""
        request = admin_pb2.ExportRequest(folder=checked_utf8("folder", folder))
        return self._call(calls.EXPORT, request)

    def backup(self, folder: str) -> int:
        """Copies database and snapshots on the server's machine; returns the version."""
        request = admin_pb2.BackupRequest(folder=checked_utf8("folder", folder))
        return self._call(calls.BACKUP, request)

    def _pages(
        self, call: calls.Call[Any, Any, calls.Page[calls.ItemT]], request: Any
    ) -> Iterator[calls.ItemT]:
        while True:
            page = self._call(call, request)
            for item in page.items:
                yield item
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
