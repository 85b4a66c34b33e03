"""The table of calls: the RPC of each, its messages, what its response becomes, its deadline.

Who may make a call, and whether it may be repeated, is a property of the RPC: see `METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from agent.client import messages
from agent.client.types import OperationStatus
from agent.wire import codec
from continual.v1 import admin_pb2, model_pb2
from continual.v1 import memory_pb2 as pb
from memory_store.vocabulary import Fact

# Most calls read a little or store a little.
DEADLINE_SECONDS = 30.0
# An answer may have to wait for the step of an update, on a CPU for seconds.
ANSWER_DEADLINE_SECONDS = 300.0
# Gigabytes are written or read, or a file of a million facts is taught.
COPY_DEADLINE_SECONDS = 3600.0
# Every fact is asked, and there may be 100,000. A broken connection is noticed much earlier.
PROBE_DEADLINE_SECONDS = 24 * 3600.0
# The client then watches again, from the last event.
WATCH_DEADLINE_SECONDS = 600.0

MEMORY, MODEL, ADMIN = (f"continual.v1.{name}Service" for name in ("Memory", "Model", "Admin"))

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)
ResultT = TypeVar("ResultT")
ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class Call(Generic[RequestT, ResponseT, ResultT]):
    """One call.

    Attributes:
        rpc: full name of its RPC.
        request: type of its request, or of each of them.
        response: type of its response, or of each of them.
        decode: what a response becomes.
        deadline_seconds: the longest wait for its end.
    """

    rpc: str
    request: type[RequestT]
    response: type[ResponseT]
    decode: Callable[[ResponseT], ResultT]
    deadline_seconds: float = DEADLINE_SECONDS


@dataclass(frozen=True, slots=True)
class Page(Generic[ItemT]):
    """Some items of a list; `next_page_token` is empty after the last page."""

    items: list[ItemT]
    next_page_token: str


def _facts(response: pb.ListFactsResponse) -> Page[Fact]:
    return Page([codec.FACT.decode(fact) for fact in response.facts], response.next_page_token)


def _operations(response: admin_pb2.ListOperationsResponse) -> Page[OperationStatus]:
    operations = [messages.OPERATION.decode(operation) for operation in response.operations]
    return Page(operations, response.next_page_token)


def _nothing(response: Any) -> None:
    """The response says no more than that it was done."""


# -- Teaching --------------------------------------------------------------------------------
TEACH = Call(f"/{MEMORY}/Teach", pb.TeachRequest, pb.TeachResponse, codec.ACCEPTED.decode)
TEACH_BATCH = Call(
    f"/{MEMORY}/TeachBatch", pb.TeachBatchRequest, pb.TeachBatchResponse, messages.decode_batch
)
TEACH_STREAM = Call(
    f"/{MEMORY}/TeachStream",
    pb.TeachStreamRequest,
    pb.TeachStreamResponse,
    messages.decode_acknowledgement,
    COPY_DEADLINE_SECONDS,
)
RETRY_FACT = Call(
    f"/{MEMORY}/RetryFact",
    pb.RetryFactRequest,
    pb.RetryFactResponse,
    lambda response: codec.FACT.decode(response.fact),
)
PAUSE_LEARNING = Call(
    f"/{ADMIN}/PauseLearning",
    admin_pb2.PauseLearningRequest,
    admin_pb2.PauseLearningResponse,
    _nothing,
)
RESUME_LEARNING = Call(
    f"/{ADMIN}/ResumeLearning",
    admin_pb2.ResumeLearningRequest,
    admin_pb2.ResumeLearningResponse,
    _nothing,
)

# -- Asking ----------------------------------------------------------------------------------
ASK = Call(
    f"/{MODEL}/Ask",
    model_pb2.AskRequest,
    model_pb2.AskResponse,
    messages.decode_piece,
    ANSWER_DEADLINE_SECONDS,
)
SCORE = Call(
    f"/{MODEL}/Score",
    model_pb2.ScoreRequest,
    model_pb2.ScoreResponse,
    messages.SCORE.decode,
    ANSWER_DEADLINE_SECONDS,
)
PROBE = Call(
    f"/{MODEL}/Probe",
    model_pb2.ProbeRequest,
    model_pb2.ProbeResponse,
    lambda response: (
        codec.PROBE.decode(response.probe),
        response.facts_done,
        response.facts_total,
    ),
    PROBE_DEADLINE_SECONDS,
)

# -- Looking ---------------------------------------------------------------------------------
HEALTH = Call(
    "/grpc.health.v1.Health/Check",
    health_pb2.HealthCheckRequest,
    health_pb2.HealthCheckResponse,
    lambda response: response.status == health_pb2.HealthCheckResponse.SERVING,
)
STATUS = Call(
    f"/{MODEL}/GetStatus",
    model_pb2.GetStatusRequest,
    model_pb2.GetStatusResponse,
    messages.STATUS.decode,
)
RETENTION = Call(
    f"/{MODEL}/GetRetention",
    model_pb2.GetRetentionRequest,
    model_pb2.GetRetentionResponse,
    messages.decode_retention,
)
HISTORY = Call(f"/{MEMORY}/GetFact", pb.GetFactRequest, pb.GetFactResponse, messages.decode_history)
FORGETTING = Call(
    f"/{MEMORY}/GetFact", pb.GetFactRequest, pb.GetFactResponse, messages.decode_forgetting
)
FACTS = Call(f"/{MEMORY}/ListFacts", pb.ListFactsRequest, pb.ListFactsResponse, _facts)
WATCH = Call(
    f"/{MEMORY}/WatchEvents",
    pb.WatchEventsRequest,
    pb.WatchEventsResponse,
    messages.decode_events,
    WATCH_DEADLINE_SECONDS,
)
EXPLAIN = Call(
    f"/{MEMORY}/Explain", pb.ExplainRequest, pb.ExplainResponse, messages.EXPLANATION.decode
)

# -- Operations ------------------------------------------------------------------------------
FORGET = Call(
    f"/{MEMORY}/Forget",
    pb.ForgetRequest,
    pb.ForgetResponse,
    lambda response: (messages.OPERATION.decode(response.operation), list(response.out_of_reach)),
)
ROLLBACK = Call(
    f"/{ADMIN}/Rollback",
    admin_pb2.RollbackRequest,
    admin_pb2.RollbackResponse,
    lambda response: messages.OPERATION.decode(response.operation),
)
OPERATION = Call(
    f"/{ADMIN}/GetOperation",
    admin_pb2.GetOperationRequest,
    admin_pb2.GetOperationResponse,
    lambda response: messages.OPERATION.decode(response.operation),
)
OPERATIONS = Call(
    f"/{ADMIN}/ListOperations",
    admin_pb2.ListOperationsRequest,
    admin_pb2.ListOperationsResponse,
    _operations,
)
CANCEL_OPERATION = Call(
    f"/{ADMIN}/CancelOperation",
    admin_pb2.CancelOperationRequest,
    admin_pb2.CancelOperationResponse,
    lambda response: messages.OPERATION.decode(response.operation),
)

# -- Files on the server's machine -----------------------------------------------------------
SNAPSHOTS = Call(
    f"/{ADMIN}/ListSnapshots",
    admin_pb2.ListSnapshotsRequest,
    admin_pb2.ListSnapshotsResponse,
    lambda response: [messages.SNAPSHOT.decode(snapshot) for snapshot in response.snapshots],
)
CREATE_SNAPSHOT = Call(
    f"/{ADMIN}/CreateSnapshot",
    admin_pb2.CreateSnapshotRequest,
    admin_pb2.CreateSnapshotResponse,
    lambda response: messages.SNAPSHOT.decode(response.snapshot),
    COPY_DEADLINE_SECONDS,
)
VERIFY_SNAPSHOTS = Call(
    f"/{ADMIN}/VerifySnapshots",
    admin_pb2.VerifySnapshotsRequest,
    admin_pb2.VerifySnapshotsResponse,
    lambda response: {verdict.model_version: verdict.error for verdict in response.verdicts},
    COPY_DEADLINE_SECONDS,
)
PRUNE_SNAPSHOTS = Call(
    f"/{ADMIN}/PruneSnapshots",
    admin_pb2.PruneSnapshotsRequest,
    admin_pb2.PruneSnapshotsResponse,
    lambda response: list(response.removed_versions),
    COPY_DEADLINE_SECONDS,
)
COMPACT = Call(
    f"/{ADMIN}/Compact",
    admin_pb2.CompactRequest,
    admin_pb2.CompactResponse,
    codec.COMPACTION.decode,
    COPY_DEADLINE_SECONDS,
)
EXPORT = Call(
    f"/{ADMIN}/Export",
    admin_pb2.ExportRequest,
    admin_pb2.ExportResponse,
    lambda response: response.model_version,
    COPY_DEADLINE_SECONDS,
)
BACKUP = Call(
    f"/{ADMIN}/Backup",
    admin_pb2.BackupRequest,
    admin_pb2.BackupResponse,
    lambda response: response.model_version,
    COPY_DEADLINE_SECONDS,
)
