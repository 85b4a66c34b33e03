"""Converts the messages of the clients' own types; `wire.codec` has those of the vocabulary."""

from __future__ import annotations

import json
import uuid

import grpc

from agent.client.types import (
    Explanation,
    OperationStatus,
    Rejected,
    Reply,
    Score,
    Snapshot,
    Status,
    Taught,
)
from agent.wire import codec
from agent.wire.error_details import Refusal, RequestError, decode_rejection
from agent.wire.mapper import Special, pair
from continual.v1 import admin_pb2, model_pb2
from continual.v1 import memory_pb2 as pb
from memory_store.vocabulary import (
    Accepted,
    Event,
    Fact,
    FactRetention,
    NewFact,
    Probe,
    Retention,
    Update,
)

REPLY = pair(Reply, model_pb2.AskResponse, not_read=("text",))
SCORE = pair(Score, model_pb2.ScoreResponse)
SNAPSHOT = pair(Snapshot, admin_pb2.Snapshot, {"created_at": "create_time"})
EXPLANATION = pair(Explanation, pb.ExplainResponse)
OPERATION = pair(
    OperationStatus,
    pb.Operation,
    {
        "proof": Special(
            "proof_json",
            encode=lambda proof: json.dumps(proof) if proof else "",
            decode=lambda text: json.loads(text) if text else {},
        ),
        "requested_at": "request_time",
        "finished_at": "finish_time",
    },
)
STATUS = pair(
    Status,
    model_pb2.GetStatusResponse,
    {
        "facts": Special(
            "fact_counts",
            encode=lambda facts: [
                model_pb2.StateCount(state=codec.STATE_TO_PB[state], count=count)
                for state, count in facts.items()
            ],
            decode=lambda counts: {codec.STATE_FROM_PB[each.state]: each.count for each in counts},
        ),
        "learner": "learner_state",
        "started_at": "start_time",
        "oldest_queued_at": "oldest_queued_time",
    },
    parts=[OPERATION],
)


def encode_new(new: NewFact) -> pb.TeachRequest:
    """Makes the request that teaches a fact.

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
    """Returns a text that can be sent. Text from a shell may have bytes that are not UTF-8.

    Raises:
        RequestError: it is not UTF-8.
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
    """Reads the result of each fact of a batch."""
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
    """Reads why a fact of a stream or a batch was refused."""
    refusal = decode_rejection(message)
    return Rejected(
        index=index,
        message=refusal.message,
        reason=refusal.reason,
        retry_seconds=refusal.retry_seconds,
    )


def decode_acknowledgement(response: pb.TeachStreamResponse) -> Accepted | Rejected:
    """Reads the result of one fact of a stream."""
    if response.HasField("accepted"):
        return codec.ACCEPTED.decode(response.accepted)
    return decode_rejected(response.index, response.rejected)


def decode_history(response: pb.GetFactResponse) -> tuple[Fact, list[Update], list[Probe]]:
    """A fact with its ledger rows, oldest first, and its probes, newest first."""
    return (
        codec.FACT.decode(response.fact),
        [codec.UPDATE.decode(update) for update in response.updates],
        [codec.PROBE.decode(probe) for probe in response.probes],
    )


def decode_forgetting(response: pb.GetFactResponse) -> OperationStatus | None:
    """The last request to forget a fact, if there was one."""
    return OPERATION.decode(response.forgetting) if response.HasField("forgetting") else None


def decode_events(response: pb.WatchEventsResponse) -> list[Event]:
    """The events of a message; an older server sends one at a time."""
    alone = [response.event] if response.HasField("event") else []
    return [codec.EVENT.decode(event) for event in (*alone, *response.events)]


def decode_piece(response: model_pb2.AskResponse) -> str | Reply:
    """A piece of an answer, or after the last one the whole."""
    return response.text or REPLY.decode(response)


def decode_retention(
    response: model_pb2.GetRetentionResponse,
) -> tuple[list[FactRetention], list[Retention]]:
    """Held facts with their last probes, and what reviews found by age."""
    return (
        [codec.FACT_RETENTION.decode(fact) for fact in response.facts],
        [codec.AGE_RETENTION.decode(ages) for ages in response.ages],
    )
