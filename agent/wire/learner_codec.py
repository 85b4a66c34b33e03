"""Records, messages and errors between server and learner: a pair for each record."""

from __future__ import annotations

from dataclasses import replace

import grpc

from agent.errors import (
    DriftError,
    InvalidFactError,
    LearnerUnavailableError,
    LearningFailedError,
    MemoryShortageError,
    SnapshotError,
    StaleVersionError,
)
from agent.teaching.consolidation import Consolidated, ConsolidationPlan, Epoch
from agent.teaching.plan import LessonPlan
from agent.teaching.types import (
    Answer,
    Example,
    LearnerDescription,
    Opening,
    Outcome,
    ReplayedUpdate,
)
from agent.wire import codec
from agent.wire.mapper import NotSent, pair
from continual.learner.v1 import learner_pb2 as pb
from memory_store.vocabulary import Policy

# How the learner reports an error, and what the server raises for it.
STATUS: dict[type[Exception], grpc.StatusCode] = {
    InvalidFactError: grpc.StatusCode.INVALID_ARGUMENT,
    StaleVersionError: grpc.StatusCode.FAILED_PRECONDITION,
    DriftError: grpc.StatusCode.DATA_LOSS,
    SnapshotError: grpc.StatusCode.OUT_OF_RANGE,
    MemoryShortageError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    LearningFailedError: grpc.StatusCode.ABORTED,
}
ERRORS: dict[grpc.StatusCode, type[Exception]] = {
    **{code: error for error, code in STATUS.items()},
    # From gRPC, when the process is gone.
    grpc.StatusCode.UNAVAILABLE: LearnerUnavailableError,
    grpc.StatusCode.CANCELLED: LearnerUnavailableError,
}

ANSWER = pair(Answer, pb.Answer)
DESCRIPTION = pair(LearnerDescription, pb.DescribeResponse)
EXAMPLE = pair(Example, pb.Example)
OPENING = pair(Opening, pb.Opening)
OUTCOME = pair(Outcome, pb.Outcome)
# With guards and predictor, which clients do not see.
POLICY = pair(Policy, pb.Policy)
# Only the server needs to know whether an attempt is repeated.
CONSOLIDATION = pair(ConsolidationPlan, pb.ConsolidateRequest, not_read=["checkpoints"])
EPOCH = pair(Epoch, pb.Epoch)
CONSOLIDATED = pair(Consolidated, pb.Consolidated)
LESSON = pair(LessonPlan, pb.LearnRequest, {"again": NotSent(decoded=False)})


def encode_replayed(row: ReplayedUpdate, accept_drift: bool) -> pb.ReplayRequest:
    """Makes the request that replays a row of the ledger."""
    policy = row.update.policy
    return pb.ReplayRequest(
        update=codec.UPDATE.encode(row.update),
        policy=POLICY.encode(policy) if policy else None,
        example=EXAMPLE.encode(row.example),
        rehearsed=map(EXAMPLE.encode, row.rehearsed),
        accept_drift=accept_drift,
    )


def decode_replayed(message: pb.ReplayRequest) -> ReplayedUpdate:
    """The inverse of `encode_replayed`."""
    policy = POLICY.decode(message.policy) if message.HasField("policy") else None
    return ReplayedUpdate(
        update=replace(codec.UPDATE.decode(message.update), policy=policy),
        example=EXAMPLE.decode(message.example),
        rehearsed=tuple(map(EXAMPLE.decode, message.rehearsed)),
    )
