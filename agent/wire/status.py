"""The table from our errors to gRPC status codes, and the interceptor that applies it."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from agent.errors import (
    BackupOvertakenError,
    DeadlyQuestionError,
    InvalidFactError,
    LearnerDiedError,
    LearnerUnavailableError,
    LearningFailedError,
    MemoryShortageError,
    NotAllowedError,
    NotAuthenticatedError,
    RateLimitedError,
    SnapshotError,
    TooManyQuestionsError,
    TooManyStreamsError,
)
from agent.wire.error_details import Refusal, encode_status
from agent.wire.methods import METHODS, UNKNOWN, Role, kind_of
from agent.wire.rules import check_rules
from memory_store.errors import (
    FactExistsError,
    FactNotFoundError,
    InvalidPageTokenError,
    QueueFullError,
    RequestIdUsedError,
    StoreClosedError,
    StoreUnusableError,
    WrongStateError,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kind:
    """How a type of error is reported to a client.

    Attributes:
        code: the gRPC status code.
        reason: the reason in `ErrorInfo`; clients may depend on it.
        retry_seconds: the delay in `RetryInfo`; None if a retry does not help.
    """

    code: grpc.StatusCode
    reason: str
    retry_seconds: float | None = None


# The first match counts, so subclasses come before their bases.
STATUS: dict[type[Exception], Kind] = {
    InvalidFactError: Kind(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
    InvalidPageTokenError: Kind(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"),
    FactNotFoundError: Kind(grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
    RequestIdUsedError: Kind(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_USED"),
    FactExistsError: Kind(grpc.StatusCode.ALREADY_EXISTS, "FACT_ID_TAKEN"),
    QueueFullError: Kind(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", 5.0),
    WrongStateError: Kind(grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE"),
    NotAuthenticatedError: Kind(grpc.StatusCode.UNAUTHENTICATED, "NOT_AUTHENTICATED"),
    NotAllowedError: Kind(grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED"),
    TooManyStreamsError: Kind(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS", 5.0),
    RateLimitedError: Kind(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", 1.0),
    BackupOvertakenError: Kind(grpc.StatusCode.ABORTED, "BACKUP_OVERTAKEN", 1.0),
    SnapshotError: Kind(grpc.StatusCode.UNAVAILABLE, "SNAPSHOT_UNUSABLE"),
    LearnerUnavailableError: Kind(grpc.StatusCode.UNAVAILABLE, "LEARNER_UNAVAILABLE", 1.0),
    # Not UNAVAILABLE: clients retry that automatically.
    LearnerDiedError: Kind(grpc.StatusCode.ABORTED, "LEARNER_DIED", 1.0),
    DeadlyQuestionError: Kind(grpc.StatusCode.FAILED_PRECONDITION, "DEADLY_QUESTION"),
    TooManyQuestionsError: Kind(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_QUESTIONS", 1.0),
    MemoryShortageError: Kind(grpc.StatusCode.RESOURCE_EXHAUSTED, "MEMORY_SHORT", 2.0),
    LearningFailedError: Kind(grpc.StatusCode.INTERNAL, "LEARNING_FAILED"),
    StoreUnusableError: Kind(grpc.StatusCode.UNAVAILABLE, "MEMORY_UNUSABLE", 5.0),
    StoreClosedError: Kind(grpc.StatusCode.UNAVAILABLE, "STOPPING", 1.0),
}
UNEXPECTED = "INTERNAL"
OUR_SERVICES = "/continual."


def status_of(error: Exception) -> Refusal:
    """Describes an error to a client; an unexpected one only by a reference to the log."""
    for type_, kind in STATUS.items():
        if isinstance(error, type_):
            return Refusal(
                code=kind.code,
                message=str(error),
                reason=kind.reason,
                violations=error.violations if isinstance(error, InvalidFactError) else (),
                retry_seconds=kind.retry_seconds,
            )
    reference = secrets.token_hex(4)
    logger.error("unexpected error, reference %s", reference, exc_info=error)
    return Refusal(
        code=grpc.StatusCode.INTERNAL,
        message=f"internal error, reference {reference}: the server's log has more",
        reason=UNEXPECTED,
        reference=reference,
    )


class Malformed:
    """Takes the place of a request that could not be decoded."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        self.message = message


class StatusInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg] # only in stubs
    """Validates the requests of our services, and turns what handlers raise into a status.

    Health and reflection are not wrapped.

    Attributes:
        idle: set while none of our calls is running.
    """

    def __init__(self) -> None:
        self.idle = asyncio.Event()
        self.idle.set()
        self._running = 0
        self._stopping = False
        self._wrapped: dict[str, Any] = {}  # wrapped handlers by method, cached

    def refuse_work(self) -> None:
        """Admits only calls that read from now on; others get UNAVAILABLE."""
        self._stopping = True

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wraps the handler of a method, so that decoding and errors are ours."""
        method = handler_call_details.method
        if self._stopping and METHODS.get(method, UNKNOWN).role not in (None, Role.READ):
            return _STOPPING
        wrapped = self._wrapped.get(method)
        if wrapped is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        if handler is None or not method.startswith(OUR_SERVICES):
            return handler
        kind = kind_of(handler)
        wrap = self._wrap_stream if handler.response_streaming else self._wrap_unary
        self._wrapped[method] = wrapped = handler._replace(
            request_deserializer=_tolerant(handler.request_deserializer),
            **{kind: wrap(getattr(handler, kind))},
        )
        return wrapped

    def _wrap_unary(self, behavior: Callable[[Any, Any], Awaitable[Any]]) -> Any:
        async def unary(request: Any, context: Any) -> Any:
            self._begin()
            try:
                return await behavior(_decoded(request), context)
            except Exception as error:  # noqa: BLE001 - the outermost handler of errors
                await _abort(context, error)
            finally:
                self._end()

        return unary

    def _wrap_stream(self, behavior: Callable[[Any, Any], AsyncIterator[Any]]) -> Any:
        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            self._begin()
            try:
                async for response in behavior(_decoded(request), context):
                    yield response
            except Exception as error:  # noqa: BLE001 - as above
                await _abort(context, error)
            finally:
                self._end()

        return stream

    def _begin(self) -> None:
        self._running += 1
        self.idle.clear()

    def _end(self) -> None:
        self._running -= 1
        if not self._running:
            self.idle.set()


async def _refuse_work(requests: object, context: Any) -> AsyncIterator[Any]:
    await _abort(context, StoreClosedError("The server is stopping. Try again later."))
    yield  # makes this a generator, which other interceptors expect


# Serves any kind of call, because it reads no request and sends no response.
_STOPPING = grpc.stream_stream_rpc_method_handler(_refuse_work)


async def _abort(context: Any, error: Exception) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    status = encode_status(status_of(error))
    await context.abort(status.code, status.details, status.trailing_metadata)


def _decoded(request: Any) -> Any:
    """Checks a request, or each request of a stream.

    Raises:
        InvalidFactError: it could not be decoded, or it breaks a rule.
    """
    if hasattr(request, "__aiter__"):
        return _decoded_stream(request)
    return _well_formed(request)


async def _decoded_stream(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _well_formed(request)


def _well_formed(request: Any) -> Any:
    if isinstance(request, Malformed):
        raise InvalidFactError(request.field, request.message)
    check_rules(request)
    return request


def _tolerant(deserialize: Callable[[bytes], Message]) -> Callable[[bytes], Message | Malformed]:
    """Passes a malformed request on as `Malformed`, so that our wrapper answers it.

    gRPC alone would answer INTERNAL without a reason.
    """

    def tolerant(wire: bytes) -> Message | Malformed:
        try:
            return deserialize(wire)
        except DecodeError:
            message_class = getattr(deserialize, "__self__", None)
            field = _field_not_utf8(message_class.DESCRIPTOR, wire) if message_class else None
            if field is None:
                return Malformed("request", "not a valid protobuf message")
            return Malformed(field, "must be UTF-8")

    return tolerant


def _field_not_utf8(descriptor: Any, wire: bytes) -> str | None:
    """Returns the string field whose bytes are not UTF-8; None if that is not the problem.

    Parses the message again as a twin type with `bytes` instead of `string`.
    """
    pool = descriptor_pool.DescriptorPool()
    _add_twin(pool, descriptor.file, set())
    twin = message_factory.GetMessageClass(pool.FindMessageTypeByName(descriptor.full_name))()
    try:
        twin.ParseFromString(wire)
    except DecodeError:
        return None
    return _first_not_utf8(twin, "")


def _add_twin(pool: descriptor_pool.DescriptorPool, file: Any, added: set[str]) -> None:
    if file.name in added:
        return
    added.add(file.name)
    for dependency in file.dependencies:
        _add_twin(pool, dependency, added)
    proto = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(proto)

    def strings_to_bytes(message: descriptor_pb2.DescriptorProto) -> None:
        for field in message.field:
            if field.type == field.TYPE_STRING:
                field.type = field.TYPE_BYTES
        for nested in message.nested_type:
            # The key of a map must stay a string.
            if not nested.options.map_entry:
                strings_to_bytes(nested)

    for message in proto.message_type:
        strings_to_bytes(message)
    pool.Add(proto)


def _first_not_utf8(message: Any, prefix: str) -> str | None:
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        for index, item in enumerate(values):
            name = f"{prefix}{field.name}" + (f"[{index}]" if field.is_repeated else "")
            if field.type == FieldDescriptor.TYPE_BYTES:
                try:
                    item.decode()
                except UnicodeDecodeError:
                    return name
            elif field.type == FieldDescriptor.TYPE_MESSAGE:
                found = _first_not_utf8(item, f"{name}.")
                if found:
                    return found
    return None
