"""Encodes and decodes errors: a gRPC code, a message for people, and details for programs.

The details follow Google's error model (https://google.aip.dev/193). The trailing metadata has at
most one each of `ErrorInfo`, `BadRequest` and `RetryInfo`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from agent.errors import AgentError
from continual.v1 import memory_pb2 as pb

DOMAIN = "continual-agent"
# Details are sent in the trailing metadata, which is limited to 8 KiB.
MAX_VIOLATIONS = 16
CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request was refused.

    Attributes:
        code: the gRPC status code.
        message: the text for people.
        reason: the reason for programs, such as `QUEUE_FULL`; empty if the server gave none.
        violations: pairs of an invalid field's path and what is wrong with it.
        retry_seconds: how long to wait before a retry; None if a retry does not help.
        reference: where the server's log describes an unexpected error; empty for other errors.
    """

    code: grpc.StatusCode
    message: str
    reason: str = ""
    violations: tuple[tuple[str, str], ...] = ()
    retry_seconds: float | None = None
    reference: str = ""


class RequestError(AgentError):
    """The server refused a request. Its attributes are those of `Refusal`."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.code = refusal.code
        self.reason = refusal.reason
        self.violations = refusal.violations
        self.retry_seconds = refusal.retry_seconds
        self.reference = refusal.reference

    @property
    def is_unavailable(self) -> bool:
        """Whether a retry in a moment may help."""
        return self.code == grpc.StatusCode.UNAVAILABLE


def encode_status(refusal: Refusal) -> grpc.Status:
    """Makes the status that ends a call: code, message and details."""
    info = ErrorInfo(reason=refusal.reason, domain=DOMAIN)
    if refusal.reference:
        info.metadata["reference"] = refusal.reference
    details: list[Message] = [info]
    if refusal.violations:
        details.append(
            BadRequest(
                field_violations=[
                    BadRequest.FieldViolation(field=field, description=description)
                    for field, description in refusal.violations[:MAX_VIOLATIONS]
                ]
            )
        )
    if refusal.retry_seconds is not None:
        details.append(RetryInfo(retry_delay=_duration(refusal.retry_seconds)))
    status = Status(code=refusal.code.value[0], message=refusal.message)
    for detail in details:
        status.details.add().Pack(detail)
    return rpc_status.to_status(status)


def decode_error(error: grpc.RpcError) -> Refusal:
    """Reads why a call failed; without details if they are missing or cannot be parsed."""
    code, message = error.code(), error.details() or error.code().name
    try:
        status = rpc_status.from_call(cast(grpc.Call, error))
    except (ValueError, DecodeError):
        status = None
    if status is None:
        return Refusal(code=code, message=message)
    info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
    for detail in status.details:
        _unpack(detail, info, bad, retry)
    return Refusal(
        code=code,
        message=message,
        reason=info.reason,
        violations=tuple((each.field, each.description) for each in bad.field_violations),
        retry_seconds=_seconds(retry.retry_delay) if retry.HasField("retry_delay") else None,
        reference=info.metadata.get("reference", ""),
    )


def encode_rejection(refusal: Refusal) -> pb.Rejection:
    """Makes the error of one fact in a stream or a batch."""
    return pb.Rejection(
        code=refusal.code.value[0],
        message=refusal.message,
        reason=refusal.reason,
        field=refusal.violations[0][0] if refusal.violations else "",
        retry_delay=None if refusal.retry_seconds is None else _duration(refusal.retry_seconds),
    )


def decode_rejection(message: pb.Rejection) -> Refusal:
    """The inverse of `encode_rejection`."""
    return Refusal(
        code=CODES.get(message.code, grpc.StatusCode.UNKNOWN),
        message=message.message,
        reason=message.reason,
        violations=((message.field, message.message),) if message.field else (),
        retry_seconds=_seconds(message.retry_delay) if message.HasField("retry_delay") else None,
    )


def _unpack(detail: AnyMessage, *into: Message) -> None:
    for message in into:
        detail.Unpack(message)  # no effect if the detail has another type


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(round(1000 * seconds))
    return duration


def _seconds(duration: Duration) -> float:
    return duration.ToMilliseconds() / 1000
