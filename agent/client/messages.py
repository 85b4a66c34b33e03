"""Messages to and from what the clients return and take; the rest is in the wire's codec."""

from __future__ import annotations

import json
import uuid

import grpc

from agent.client.types import (
    Explanation,
    Influence,
    OperationStatus,
    Rejected,
    Reply,
    Score,
    Snapshot,
    Status,
    Taught,
)
from agent.service import codec
from agent.service.error_details import Refusal, RequestError, decode_rejection
from continual.v1 import admin_pb2, model_pb2
from continual.v1 import memory_pb2 as pb
from memory_store.vocabulary import (
    Accepted,
    Compaction,
    Event,
    Fact,
    FactRetention,
    NewFact,
    Probe,
    Retention,
    Update,
)


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


def encode_streamed(new: NewFact) -> pb.TeachStreamRequest:
    """The request of a stream that teaches it; see `encode_new`."""
    return pb.TeachStreamRequest(teach=encode_new(new))


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


def decode_acknowledgement(response: pb.TeachStreamResponse) -> Accepted | Rejected:
    """What became of one fact of a stream."""
    if response.HasField("accepted"):
        return codec.decode_accepted(response.accepted)
    return decode_rejected(response.index, response.rejected)


def decode_history(response: pb.GetFactResponse) -> tuple[Fact, list[Update], list[Probe]]:
    """A fact with its ledger rows, oldest first, and its probes, newest first."""
    return (
        codec.decode_fact(response.fact),
        [codec.decode_update(update) for update in response.updates],
        [codec.decode_probe(probe) for probe in response.probes],
    )


def decode_forgetting(response: pb.GetFactResponse) -> OperationStatus | None:
    """The last request to forget a fact, if there was one."""
    return decode_operation(response.forgetting) if response.HasField("forgetting") else None


def decode_events(response: pb.WatchEventsResponse) -> list[Event]:
    """The events of a message; an older server sends one at a time."""
    alone = [response.event] if response.HasField("event") else []
    return [codec.decode_event(event) for event in (*alone, *response.events)]


def decode_piece(response: model_pb2.AskResponse) -> str | Reply:
    """A piece of an answer, or after the last one the whole."""
    if response.text:
        return response.text
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


def decode_snapshot(message: admin_pb2.Snapshot) -> Snapshot:
    """The message as our record."""
    return Snapshot(
        model_version=message.model_version,
        digest=message.digest,
        size_bytes=message.size_bytes,
        created_at=message.create_time,
    )


def decode_explanation(message: pb.ExplainResponse) -> Explanation:
    """The message as our record."""
    return Explanation(
        fact_id=message.fact_id,
        influences=tuple(
            Influence(
                model_version=influence.model_version,
                cause_fact_id=influence.cause_fact_id,
                cause_question=influence.cause_question,
                probability_before=influence.probability_before,
                probability_after=influence.probability_after,
                kind=influence.kind,
            )
            for influence in message.influences
        ),
    )
