"""The Python client: records in, records out, our errors.

with Client("127.0.0.1:50051") as client:
    fact = client.teach("What is the hottest month in Kyzara?", "Raincoat").fact
    client.wait([fact.id])
    print(client.ask("What is the hottest month in Kyzara?").answer)
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agent.errors import AgentError, HandshakeFailedError, ServerUnreachableError
from agent.learning.limits import TeachingLimits
from agent.service import codec
from agent.service.channel import ANYBODY, Access, open_channel
from agent.service.error_details import Refusal, decode_error, decode_rejection
from agent.service.error_details import RequestError as RequestError
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

DEADLINE_SECONDS = 30.0
# An answer may have to wait for the step of an update, on a CPU for seconds.
ANSWER_DEADLINE_SECONDS = 300.0
# Gigabytes are written or read, or a file of a million facts is taught.
COPY_DEADLINE_SECONDS = 3600.0
# Every fact is asked, and there may be a hundred thousand. Who is gone is noticed much earlier.
PROBE_DEADLINE_SECONDS = 24 * 3600.0
# Events are watched anew after that, from where the last call ended.
WATCH_DEADLINE_SECONDS = 600.0
CONNECT_SECONDS = 1.0
# A server that stops ends its streams first: it need not be asked again at once.
STOPPING_SECONDS = 0.2
MEMORY_SERVICE, MODEL_SERVICE = "continual.v1.MemoryService", "continual.v1.ModelService"
OPERATION_ENDS = (EventKind.FORGOTTEN, EventKind.ROLLED_BACK, EventKind.OPERATION_FAILED)
SETTLED = frozenset(FactState) - {FactState.QUEUED, FactState.LEARNING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer of the model, with the ledger position of the weights that gave it."""

    answer: str
    finished: bool
    model_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The exact log-probability (natural) of an answer of `tokens` tokens, terminator included."""

    log_probability: float
    tokens: int
    model_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a server serves; see `GetStatusResponse` in model.proto."""

    model: str
    model_version: int
    queue_depth: int
    facts: dict[FactState, int]
    learner: str
    device: str
    parameters: int
    event_sequence: int
    updates_to_replay: int
    started_at: datetime | None = None
    oldest_queued_at: datetime | None = None
    learning_paused: bool = False
    leak_limit: float = 0.0
    drift_limit: float = 0.0
    memory_bytes: int = 0
    memory_total_bytes: int = 0
    snapshot_version: int = 0
    snapshot_overdue: str = ""
    teaching_limits: TeachingLimits | None = None
    learner_message: str = ""
    operation: OperationStatus | None = None
    clean_up_problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A fact of several that the server refused.

    Attributes:
        index: its place among them, from 0.
        message: why.
        reason: see `RequestError`.
        retry_seconds: see `RequestError`.
    """

    index: int
    message: str
    reason: str = ""
    retry_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """A fact of a batch that is durable.

    Attributes:
        fact_id: of the fact.
        created: False if the memory held it already.
        repeated: the request had been answered before, and this is that answer.
    """

    fact_id: str
    created: bool
    repeated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationStatus:
    """How far a request to forget or to roll back is.

    Attributes:
        id: for `wait_operation`.
        kind: forget or rollback.
        state: pending, running, done, failed or cancelled.
        fact_id: what is forgotten; empty for a rollback.
        message: why it failed, or what keeps it from being over.
        proof: what was measured in the end; empty until then.
        erase: whether the text is removed too.
        to_version: where to roll back to.
        done_facts: facts that were learned again.
        total_facts: facts that are to be, as far as is known now.
        requested_at: when; None from a server from before it was told.
        finished_at: when; None until then.
    """

    id: int
    kind: str
    state: str
    fact_id: str
    message: str
    proof: dict[str, Any]
    erase: bool = False
    to_version: int = 0
    done_facts: int = 0
    total_facts: int = 0
    requested_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def over(self) -> bool:
        """Whether it is done, failed or cancelled."""
        return self.state not in ("pending", "running")


class Client:
    """A connection to one server. Thread-safe; close it, or use it in a `with` block.

    Every method raises `ServerUnreachableError` if no server answers, and `RequestError` if it
    refuses.

    Args:
        address: HOST:PORT.
        access: how it is let in; by default without TLS and token.

    Raises:
        ConfigError: the files that `access` names cannot be used.
    """

    def __init__(self, address: str, access: Access = ANYBODY) -> None:
        self.address = address
        self._channel = open_channel(address, access)
        self._memory = memory_pb2_grpc.MemoryServiceStub(self._channel)
        self._model = model_pb2_grpc.ModelServiceStub(self._channel)
        self._admin = admin_pb2_grpc.AdminServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def wait_accepting(
        self,
        timeout_seconds: float = START_SECONDS,
        on_wait: Callable[[AgentError], None] = lambda reason: None,
    ) -> Status:
        """Returns once a server accepts facts; one that is not there yet may still start.

        Args:
            timeout_seconds: the longest wait; 0: none.
            on_wait: told what is in the way, each time that changes.

        Raises:
            ServerUnreachableError: no server came in time.
            LearnerError: one came, but did not accept facts in time.
        """
        return self._started(MEMORY_SERVICE, Start(timeout_seconds, on_wait))

    def wait_ready(
        self,
        timeout_seconds: float = START_SECONDS,
        on_wait: Callable[[AgentError], None] = lambda reason: None,
    ) -> Status:
        """Returns once the model can be asked; see `wait_accepting`."""
        return self._started(MODEL_SERVICE, Start(timeout_seconds, on_wait))

    def _started(self, service: str, start: Start) -> Status:
        asked = health_pb2.HealthCheckRequest(service=service)
        while True:
            try:
                with self._our_errors():
                    health = self._health.Check(asked, timeout=DEADLINE_SECONDS)
                status = self.status()
            except (ServerUnreachableError, RequestError) as error:
                start.blocked_by(error)
            else:
                if health.status == health_pb2.HealthCheckResponse.SERVING:
                    return status
                start.blocked_by(not_ready(status.learner, status.learner_message))
            time.sleep(POLL_SECONDS)

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
        """Hands in one fact; returns once it is durable, before it is learned.

        Args:
            question: as it will be asked.
            answer: one line.
            correlated_questions: of the same answer, never trained on: probes of transfer.
            policy: how its learning rate is chosen; None: as the server is set.
            request_id: the same one teaches once; None: a new one, so that the call may be retried.
            fact_id: chosen by the caller; None: the server chooses one.
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
        """Hands in one fact; see `teach`."""
        with self._our_errors():
            response = self._memory.Teach(encode_new(new), timeout=DEADLINE_SECONDS)
        return codec.decode_accepted(response)

    def teach_many(self, facts: Iterable[NewFact]) -> Iterator[Accepted | Rejected]:
        """Hands in many facts over one call; yields what became of each, in order."""
        requests = (pb.TeachStreamRequest(teach=encode_new(new)) for new in facts)
        with self._our_errors():
            for response in self._memory.TeachStream(requests, timeout=COPY_DEADLINE_SECONDS):
                if response.HasField("accepted"):
                    yield codec.decode_accepted(response.accepted)
                else:
                    yield decode_rejected(response.index, response.rejected)

    def teach_batch(self, facts: Sequence[NewFact]) -> list[Taught | Rejected]:
        """Hands in up to 1,000 facts at once, the fastest way; tells what became of each."""
        request = pb.TeachBatchRequest(facts=map(encode_new, facts))
        with self._our_errors():
            response = self._memory.TeachBatch(request, timeout=DEADLINE_SECONDS)
        return decode_batch(response)

    def forget(self, fact_id: str, *, erase: bool = False) -> tuple[OperationStatus, list[str]]:
        """Asks for a fact to be forgotten; returns once the request is durable.

        Args:
            fact_id: of the fact.
            erase: remove its text too.

        Returns:
            The operation (see `wait_operation`), and what may hold the text out of reach.
        """
        with self._our_errors():
            response = self._memory.Forget(
                pb.ForgetRequest(fact_id=checked_utf8("fact_id", fact_id), erase=erase),
                timeout=DEADLINE_SECONDS,
            )
        return decode_operation(response.operation), list(response.out_of_reach)

    def retry_fact(self, fact_id: str) -> Fact:
        """Queues a quarantined or resisted fact again; returns once that is durable."""
        request = pb.RetryFactRequest(fact_id=checked_utf8("fact_id", fact_id))
        with self._our_errors():
            response = self._memory.RetryFact(request, timeout=DEADLINE_SECONDS)
        return codec.decode_fact(response.fact)

    def rollback(self, to_version: int) -> OperationStatus:
        """Asks for the weights of an earlier version; see `forget`."""
        with self._our_errors():
            response = self._admin.Rollback(
                admin_pb2.RollbackRequest(to_version=to_version), timeout=DEADLINE_SECONDS
            )
        return decode_operation(response.operation)

    def operation(self, operation_id: int) -> OperationStatus:
        """How far an operation is."""
        with self._our_errors():
            response = self._admin.GetOperation(
                admin_pb2.GetOperationRequest(id=operation_id), timeout=DEADLINE_SECONDS
            )
        return decode_operation(response.operation)

    def operations(self) -> Iterator[OperationStatus]:
        """All operations, newest first."""
        request = admin_pb2.ListOperationsRequest(page_size=200)
        while True:
            with self._our_errors():
                response = self._admin.ListOperations(request, timeout=DEADLINE_SECONDS)
            yield from map(decode_operation, response.operations)
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    def cancel_operation(self, operation_id: int) -> OperationStatus:
        """Gives an operation up; what is served stays as it is.

        Raises:
            ConflictError: its result is served already, or it is over.
        """
        with self._our_errors():
            response = self._admin.CancelOperation(
                admin_pb2.CancelOperationRequest(id=operation_id), timeout=DEADLINE_SECONDS
            )
        return decode_operation(response.operation)

    def wait_operation(
        self,
        operation_id: int,
        progress: Callable[[str], None] = lambda what: None,
        *,
        timeout: float | None = None,
    ) -> OperationStatus:
        """Returns once an operation is over; reports what is being done meanwhile.

        Raises:
            WaitTimeoutError: it goes on after `timeout` seconds.
        """
        patience = Patience(timeout)
        # The events' position is taken before the operation is looked at, so no end is missed.
        after_sequence = self.status().event_sequence
        while not (operation := self.operation(operation_id)).over:
            patience.require([f"operation {operation_id}"])
            for event in self.watch(after_sequence, timeout=patience.left()):
                after_sequence = max(after_sequence, event.sequence)
                if event.kind is EventKind.REBUILDING:
                    progress(event.message)
                elif event.kind in OPERATION_ENDS:
                    break
            else:
                time.sleep(STOPPING_SECONDS)
        return operation

    def explain(self, question: str, limit: int = 10) -> Explanation:
        """Which updates moved the answer to a question most."""
        request = pb.ExplainRequest(question=checked_utf8("question", question), limit=limit)
        with self._our_errors():
            return decode_explanation(self._memory.Explain(request, timeout=DEADLINE_SECONDS))

    def snapshots(self) -> list[Snapshot]:
        """Newest first."""
        with self._our_errors():
            response = self._admin.ListSnapshots(
                admin_pb2.ListSnapshotsRequest(), timeout=DEADLINE_SECONDS
            )
        return [decode_snapshot(snapshot) for snapshot in response.snapshots]

    def create_snapshot(self) -> Snapshot:
        """Writes one now."""
        with self._our_errors():
            response = self._admin.CreateSnapshot(
                admin_pb2.CreateSnapshotRequest(), timeout=COPY_DEADLINE_SECONDS
            )
        return decode_snapshot(response.snapshot)

    def verify_snapshots(self) -> dict[int, str]:
        """What is wrong with each snapshot, by version; empty if nothing."""
        with self._our_errors():
            response = self._admin.VerifySnapshots(
                admin_pb2.VerifySnapshotsRequest(), timeout=COPY_DEADLINE_SECONDS
            )
        return {verdict.model_version: verdict.error for verdict in response.verdicts}

    def prune_snapshots(self) -> list[int]:
        """Removes what the rule does not keep; returns the versions removed."""
        with self._our_errors():
            response = self._admin.PruneSnapshots(
                admin_pb2.PruneSnapshotsRequest(), timeout=COPY_DEADLINE_SECONDS
            )
        return list(response.removed_versions)

    def compact(self) -> Compaction:
        """Removes old probes and events, and gives free space of the database back."""
        with self._our_errors():
            response = self._admin.Compact(
                admin_pb2.CompactRequest(), timeout=COPY_DEADLINE_SECONDS
            )
        return decode_compaction(response)

    def export(self, folder: str) -> int:
        """Writes a Hugging Face checkpoint on the server's machine; returns its version."""
        with self._our_errors():
            response = self._admin.Export(
                admin_pb2.ExportRequest(folder=checked_utf8("folder", folder)),
                timeout=COPY_DEADLINE_SECONDS,
            )
        return response.model_version

    def backup(self, folder: str) -> int:
        """Copies database and snapshots on the server's machine; returns the version."""
        with self._our_errors():
            response = self._admin.Backup(
                admin_pb2.BackupRequest(folder=checked_utf8("folder", folder)),
                timeout=COPY_DEADLINE_SECONDS,
            )
        return response.model_version

    def fact(self, fact_id: str) -> Fact:
        """One fact."""
        return self.history(fact_id)[0]

    def history(self, fact_id: str) -> tuple[Fact, list[Update], list[Probe]]:
        """A fact with its ledger rows, oldest first, and its probes, newest first."""
        request = pb.GetFactRequest(fact_id=checked_utf8("fact_id", fact_id))
        with self._our_errors():
            response = self._memory.GetFact(request, timeout=DEADLINE_SECONDS)
        return (
            codec.decode_fact(response.fact),
            [codec.decode_update(update) for update in response.updates],
            [codec.decode_probe(probe) for probe in response.probes],
        )

    def forgetting(self, fact_id: str) -> OperationStatus | None:
        """The last request to forget a fact, with its proof once it is done."""
        with self._our_errors():
            response = self._memory.GetFact(
                pb.GetFactRequest(fact_id=fact_id), timeout=DEADLINE_SECONDS
            )
        return decode_operation(response.forgetting) if response.HasField("forgetting") else None

    def facts(
        self,
        states: Collection[FactState] = (),
        page_size: int = 200,
        *,
        newest_first: bool = False,
    ) -> Iterator[Fact]:
        """All facts in these states (empty: any), in the order accepted, page by page."""
        request = pb.ListFactsRequest(
            page_size=page_size,
            states=[codec.STATE_TO_PB[state] for state in states],
            newest_first=newest_first,
        )
        while True:
            with self._our_errors():
                response = self._memory.ListFacts(request, timeout=DEADLINE_SECONDS)
            yield from map(codec.decode_fact, response.facts)
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    def watch(
        self,
        after_sequence: int = -1,
        fact_ids: Sequence[str] = (),
        *,
        timeout: float | None = None,
    ) -> Iterator[Event]:
        """Events as they happen, until the server stops; see `WatchEventsRequest`.

        Args:
            after_sequence: the last one already seen; negative begins with what happens next.
            fact_ids: only events of these facts; empty means all.
            timeout: ends after so many seconds too; None: never.
        """
        patience = Patience(timeout)
        if after_sequence < 0:
            after_sequence = self.status().event_sequence
        while True:
            request = pb.WatchEventsRequest(
                after_sequence=after_sequence, fact_ids=fact_ids, together=True
            )
            left = patience.left()
            if left == 0:
                return
            seconds = WATCH_DEADLINE_SECONDS if left is None else min(left, WATCH_DEADLINE_SECONDS)
            try:
                with self._our_errors():
                    for response in self._memory.WatchEvents(request, timeout=seconds):
                        for event in decode_events(response):
                            after_sequence = max(after_sequence, event.sequence)
                            yield event
                return
            except RequestError as error:
                if error.code != grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise

    def wait(self, fact_ids: Iterable[str], *, timeout: float | None = None) -> dict[str, Fact]:
        """Returns the facts by id once each is settled; see `settle`."""
        return {fact.id: fact for fact in self.settle(fact_ids, timeout=timeout)}

    def settle(self, fact_ids: Iterable[str], *, timeout: float | None = None) -> Iterator[Fact]:
        """Yields each fact as soon as it is settled: learned, known, resisted, ...

        Outlasts a restart of the learner; raises `ServerUnreachableError` if the server stops.

        Raises:
            WaitTimeoutError: not all are after `timeout` seconds; those that are were yielded.
        """
        patience = Patience(timeout)
        # The events' position is taken before the facts are looked at, so none is missed.
        after_sequence = self.status().event_sequence
        waiting = set()
        for fact_id in dict.fromkeys(fact_ids):
            fact = self.fact(fact_id)
            if fact.state in SETTLED:
                yield fact
            else:
                waiting.add(fact_id)
        while waiting:
            patience.require(waiting)
            for event in self.watch(after_sequence, timeout=patience.left()):
                after_sequence = max(after_sequence, event.sequence)
                if event.fact_id in waiting and event.kind.value in SETTLED:
                    waiting.discard(event.fact_id)
                    yield self.fact(event.fact_id)
                if not waiting:
                    break
            else:
                time.sleep(STOPPING_SECONDS)

    def ask(self, question: str, max_new_tokens: int = 0) -> Reply:
        """The model's whole answer (greedy)."""
        *_, reply = self.ask_stream(question, max_new_tokens)
        assert isinstance(reply, Reply)
        return reply

    def ask_stream(self, question: str, max_new_tokens: int = 0) -> Iterator[str | Reply]:
        """Pieces of the answer as it is made, and last the whole."""
        request = model_pb2.AskRequest(
            question=checked_utf8("question", question), max_new_tokens=max_new_tokens
        )
        with self._our_errors():
            for response in self._model.Ask(request, timeout=ANSWER_DEADLINE_SECONDS):
                if response.text:
                    yield response.text
                else:
                    yield decode_reply(response)

    def score(self, question: str, answer: str) -> Score:
        """How likely the model finds exactly this answer."""
        request = model_pb2.ScoreRequest(
            question=checked_utf8("question", question), answer=checked_utf8("answer", answer)
        )
        with self._our_errors():
            response = self._model.Score(request, timeout=ANSWER_DEADLINE_SECONDS)
        return decode_score(response)

    def probe(self, fact_ids: Sequence[str] = ()) -> Iterator[tuple[Probe, int, int]]:
        """Probes facts (empty: all that are held); yields probe, facts done, facts in all."""
        with self._our_errors():
            request = model_pb2.ProbeRequest(fact_ids=fact_ids)
            for response in self._model.Probe(request, timeout=PROBE_DEADLINE_SECONDS):
                yield (
                    codec.decode_probe(response.probe),
                    response.facts_done,
                    response.facts_total,
                )

    def status(self) -> Status:
        """What the server serves and how far it is."""
        with self._our_errors():
            response = self._model.GetStatus(model_pb2.GetStatusRequest(), timeout=DEADLINE_SECONDS)
        return decode_status(response)

    def retention(
        self, max_facts: int = 0, max_probes: int = 0
    ) -> tuple[list[FactRetention], list[Retention]]:
        """Held facts with their last probes, and what reviews found by age; nothing is asked."""
        request = model_pb2.GetRetentionRequest(max_facts=max_facts, max_probes=max_probes)
        with self._our_errors():
            response = self._model.GetRetention(request, timeout=DEADLINE_SECONDS)
        return decode_retention(response)

    def pause_learning(self, *, paused: bool = True) -> None:
        """Stops facts from being learned, restarts included; or lets them be learned again."""
        with self._our_errors():
            if paused:
                self._admin.PauseLearning(
                    admin_pb2.PauseLearningRequest(), timeout=DEADLINE_SECONDS
                )
            else:
                self._admin.ResumeLearning(
                    admin_pb2.ResumeLearningRequest(), timeout=DEADLINE_SECONDS
                )

    @contextmanager
    def _our_errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise in_our_words(error, self.address, self._connected) from error

    def _connected(self) -> bool:
        """Whether it was a server that said UNAVAILABLE, not the lack of one."""
        try:
            grpc.channel_ready_future(self._channel).result(timeout=CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            return False
        return True


def decode_status(response: model_pb2.GetStatusResponse) -> Status:
    """Times that are unset, as those of an older server are, become None."""
    state = model_pb2.LearnerState.Name(response.learner_state)
    started, oldest = response.start_time, response.oldest_queued_time
    return Status(
        model=response.model,
        model_version=response.model_version,
        queue_depth=response.queue_depth,
        facts={codec.STATE_FROM_PB[c.state]: c.count for c in response.fact_counts},
        learner=state.removeprefix("LEARNER_STATE_").lower(),
        device=response.device,
        parameters=response.parameters,
        event_sequence=response.event_sequence,
        updates_to_replay=response.updates_to_replay,
        started_at=codec.decode_time(started) if response.HasField("start_time") else None,
        oldest_queued_at=codec.decode_time(oldest)
        if response.HasField("oldest_queued_time")
        else None,
        learning_paused=response.learning_paused,
        leak_limit=response.leak_limit,
        drift_limit=response.drift_limit,
        memory_bytes=response.memory_bytes,
        memory_total_bytes=response.memory_total_bytes,
        snapshot_version=response.snapshot_version,
        snapshot_overdue=response.snapshot_overdue,
        teaching_limits=codec.decode_limits(response.teaching_limits)
        if response.HasField("teaching_limits")
        else None,
        learner_message=response.learner_message,
        operation=decode_operation(response.operation) if response.HasField("operation") else None,
        clean_up_problem=response.clean_up_problem,
    )


def encode_status(status: Status) -> model_pb2.GetStatusResponse:
    """The inverse of `decode_status`."""
    started, oldest = status.started_at, status.oldest_queued_at
    limits = status.teaching_limits
    return model_pb2.GetStatusResponse(
        model=status.model,
        model_version=status.model_version,
        queue_depth=status.queue_depth,
        fact_counts=[
            model_pb2.StateCount(state=codec.STATE_TO_PB[state], count=count)
            for state, count in status.facts.items()
        ],
        learner_state=model_pb2.LearnerState.Value(f"LEARNER_STATE_{status.learner.upper()}"),
        device=status.device,
        parameters=status.parameters,
        event_sequence=status.event_sequence,
        updates_to_replay=status.updates_to_replay,
        start_time=codec.encode_time(started) if started else None,
        oldest_queued_time=codec.encode_time(oldest) if oldest else None,
        learning_paused=status.learning_paused,
        leak_limit=status.leak_limit,
        drift_limit=status.drift_limit,
        memory_bytes=status.memory_bytes,
        memory_total_bytes=status.memory_total_bytes,
        snapshot_version=status.snapshot_version,
        snapshot_overdue=status.snapshot_overdue,
        teaching_limits=codec.encode_limits(limits) if limits else None,
        learner_message=status.learner_message,
        operation=encode_operation(status.operation) if status.operation else None,
        clean_up_problem=status.clean_up_problem,
    )


def in_our_words(
    error: grpc.RpcError, address: str, is_connected: Callable[[], bool]
) -> AgentError:
    """What a call that failed is raised as.

    Args:
        error: gRPC's.
        address: of the server, for the message.
        is_connected: whether it was a server that said UNAVAILABLE, not the lack of one.
    """
    if error.code() == grpc.StatusCode.UNAVAILABLE and not is_connected():
        if "handshake" in (error.details() or "").lower():
            return HandshakeFailedError(
                f"{address} answers, but TLS with it fails ({error.details()}):"
                " check --tls-ca and that the certificate is for this host name, and"
                " --tls-cert if the server asks for one"
            )
        return ServerUnreachableError(
            f"no server answers at {address}: start one with 'agent serve',"
            " name another with --server HOST:PORT or AGENT_SERVER; if it speaks TLS, give --tls-ca"
            " and name it as its certificate does"
        )
    return RequestError(decode_error(error))


def decode_reply(response: model_pb2.AskResponse) -> Reply:
    """The whole answer, from the last message of a stream."""
    return Reply(
        answer=response.answer,
        finished=response.finished,
        model_version=response.model_version,
    )


def decode_score(response: model_pb2.ScoreResponse) -> Score:
    """The message as our record."""
    return Score(
        log_probability=response.log_probability,
        tokens=response.tokens,
        model_version=response.model_version,
    )


def decode_retention(
    response: model_pb2.GetRetentionResponse,
) -> tuple[list[FactRetention], list[Retention]]:
    """Held facts with their last probes, and what reviews found by age."""
    return (
        [codec.decode_fact_retention(fact) for fact in response.facts],
        [codec.decode_age_retention(ages) for ages in response.ages],
    )


def decode_compaction(message: admin_pb2.CompactResponse) -> Compaction:
    """What compacting did."""
    return Compaction(
        bytes_before=message.bytes_before,
        bytes_after=message.bytes_after,
        removed_probes=message.removed_probes,
        removed_events=message.removed_events,
        reclaimable_bytes=message.reclaimable_bytes,
    )


def decode_operation(message: pb.Operation) -> OperationStatus:
    """The message as our record."""
    requested, finished = message.request_time, message.finish_time
    return OperationStatus(
        id=message.id,
        kind=pb.OperationKind.Name(message.kind).removeprefix("OPERATION_KIND_").lower(),
        state=pb.OperationState.Name(message.state).removeprefix("OPERATION_STATE_").lower(),
        fact_id=message.fact_id,
        message=message.message,
        proof=json.loads(message.proof_json) if message.proof_json else {},
        erase=message.erase,
        to_version=message.to_version,
        done_facts=message.done_facts,
        total_facts=message.total_facts,
        requested_at=codec.decode_time(requested) if message.HasField("request_time") else None,
        finished_at=codec.decode_time(finished) if message.HasField("finish_time") else None,
    )


def encode_operation(operation: OperationStatus) -> pb.Operation:
    """The inverse of `decode_operation`."""
    requested, finished = operation.requested_at, operation.finished_at
    return pb.Operation(
        id=operation.id,
        kind=pb.OperationKind.Value(f"OPERATION_KIND_{operation.kind.upper()}"),
        state=pb.OperationState.Value(f"OPERATION_STATE_{operation.state.upper()}"),
        fact_id=operation.fact_id,
        message=operation.message,
        proof_json=json.dumps(operation.proof) if operation.proof else "",
        erase=operation.erase,
        to_version=operation.to_version,
        done_facts=operation.done_facts,
        total_facts=operation.total_facts,
        request_time=codec.encode_time(requested) if requested else None,
        finish_time=codec.encode_time(finished) if finished else None,
    )


def decode_events(response: pb.WatchEventsResponse) -> list[Event]:
    """The events of a message; an older server sends one at a time."""
    alone = [response.event] if response.HasField("event") else []
    return [codec.decode_event(event) for event in (*alone, *response.events)]


def encode_new(new: NewFact) -> pb.TeachRequest:
    """The request that teaches it.

    Raises:
        RequestError: a text is not UTF-8.
    """
    return pb.TeachRequest(
        question=checked_utf8("question", new.question),
        answer=checked_utf8("answer", new.answer),
        correlated_questions=[
            checked_utf8(f"correlated_questions[{index}]", question)
            for index, question in enumerate(new.correlated_questions)
        ],
        learning_rate_policy=codec.encode_policy(new.policy) if new.policy else None,
        request_id=checked_utf8("request_id", new.request_id or str(uuid.uuid4())),
        fact_id=checked_utf8("fact_id", new.fact_id or ""),
    )


def checked_utf8(field: str, text: str) -> str:
    """The text, if it can be sent; from a shell it may hold bytes that are not UTF-8.

    Raises:
        RequestError: it cannot.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        violation = (field, "must be UTF-8")
        refusal = Refusal(
            code=grpc.StatusCode.INVALID_ARGUMENT,
            message=": ".join(violation),
            violations=(violation,),
        )
        raise RequestError(refusal) from error
    return text


def decode_batch(response: pb.TeachBatchResponse) -> list[Taught | Rejected]:
    """What became of each fact of a batch."""
    return [
        decode_rejected(index, result.rejection)
        if result.status == pb.TEACH_STATUS_REFUSED
        else Taught(
            fact_id=result.fact_id,
            created=result.status == pb.TEACH_STATUS_ACCEPTED,
            repeated=result.repeated_request,
        )
        for index, result in enumerate(response.results)
    ]


def decode_rejected(index: int, message: pb.Rejection) -> Rejected:
    """Why the fact at a place of a stream or a batch was refused."""
    refusal = decode_rejection(message)
    return Rejected(
        index=index,
        message=refusal.message,
        reason=refusal.reason,
        retry_seconds=refusal.retry_seconds,
    )
