"""Whatever a client sends, to any method: a proper status, nothing of the inside, and it lives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.wire.methods import METHODS
from continual.v1 import admin_pb2, memory_pb2, model_pb2
from continual.v1 import memory_pb2 as pb
from tests.cli.conftest import InThread, in_thread

REQUESTS: dict[str, Any] = {
    f"/{service.full_name}/{method.name}": method.input_type
    for file in (memory_pb2, model_pb2, admin_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
# They write where the request says, which may be anywhere.
WRITING = {f"/continual.v1.AdminService/{name}" for name in ("Export", "Backup")}
# A hidden defect would show as UNKNOWN or INTERNAL, or as no answer at all.
PROPER = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
WATCHING = "/continual.v1.MemoryService/WatchEvents"
FUZZ = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TEXTS = st.one_of(
    st.text(max_size=40),
    st.text("\x00\x1b\x9b\u202e\u2028\t\r\n[]/ ax", max_size=20),
    st.sampled_from(["Sky?", "Piano", "the-sky", "a" * 5000, "\U0010ffff" * 300]),
)


def values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    kind = FieldDescriptor
    if field.type == kind.TYPE_MESSAGE:
        return messages(field.message_type, depth + 1)
    by_type: dict[int, st.SearchStrategy[Any]] = {
        kind.TYPE_STRING: TEXTS,
        kind.TYPE_BYTES: st.binary(max_size=40),
        kind.TYPE_BOOL: st.booleans(),
        kind.TYPE_DOUBLE: st.floats(),
        kind.TYPE_FLOAT: st.floats(width=32),
        kind.TYPE_ENUM: st.integers(-(2**31), 2**31 - 1) | st.integers(0, 9),
        kind.TYPE_UINT32: st.integers(0, 2**32 - 1) | st.integers(0, 3),
        kind.TYPE_UINT64: st.integers(0, 2**64 - 1) | st.integers(0, 3),
        kind.TYPE_INT32: st.integers(-(2**31), 2**31 - 1) | st.integers(-1, 3),
        kind.TYPE_INT64: st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 3),
    }
    return by_type[field.type]


@st.composite
def messages(draw: st.DrawFn, descriptor: Any, depth: int = 0) -> Message:
    """Any message of a type, each field set or not."""
    made = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if depth > 3 or not draw(st.booleans()):
            continue
        drawn = values(field, depth)
        if field.is_repeated:
            for value in draw(st.lists(drawn, max_size=3)):
                target = getattr(made, field.name)
                target.append(value)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            getattr(made, field.name).CopyFrom(draw(drawn))
        else:
            setattr(made, field.name, draw(drawn))
    return made


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InThread]:
    with in_thread(tmp_path_factory.mktemp("fuzzed")) as running:
        yield running


@pytest.fixture(scope="module")
def channel(fuzzed: InThread) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(fuzzed.address) as opened:
        yield opened


def outcome(channel: grpc.Channel, method: str, request: bytes) -> tuple[grpc.StatusCode, str]:
    """What comes of one request; watching goes on for ever, so it is left after its first event."""
    # The stubs insist on serializers.
    call = cast(Any, channel).stream_stream(method)(iter([request]), timeout=30)
    try:
        for _ in call:
            if method == WATCHING:
                return grpc.StatusCode.OK, ""
    except grpc.RpcError:
        return call.code(), call.details()
    return grpc.StatusCode.OK, ""


def require_proper(channel: grpc.Channel, method: str, request: bytes) -> None:
    code, details = outcome(channel, method, request)
    assert code in PROPER, (method, request, code, details)
    for inside in ("Traceback", "Error(", "<class", "sqlite", ".py"):
        assert inside not in (details or "")


@pytest.fixture(scope="module", autouse=True)
def something_to_watch(channel: grpc.Channel) -> None:
    teach = pb.TeachRequest(question="Sky?", answer="Piano", fact_id="the-sky")
    code, details = outcome(channel, "/continual.v1.MemoryService/Teach", teach.SerializeToString())
    assert code is grpc.StatusCode.OK, details


def test_every_method_is_tried() -> None:
    ours = {name for name in METHODS if name.startswith("/continual.")}
    assert set(REQUESTS) == ours


@pytest.mark.parametrize("method", sorted(set(REQUESTS) - WRITING - {WATCHING}))
def test_any_message(channel: grpc.Channel, method: str) -> None:
    @FUZZ
    @given(messages(REQUESTS[method]))
    def sent(request: Message) -> None:
        require_proper(channel, method, request.SerializeToString())

    sent()


@FUZZ
@given(st.text(max_size=20), st.lists(TEXTS, max_size=3))
def test_watching(channel: grpc.Channel, more: str, fact_ids: list[str]) -> None:
    # From the beginning, so that there is an event; ids of no fact would wait for ever.
    request = pb.WatchEventsRequest(after_sequence=0, fact_ids=["the-sky", more, *fact_ids])
    require_proper(channel, WATCHING, request.SerializeToString())


@FUZZ
@given(st.sampled_from(sorted(set(REQUESTS) - WRITING - {WATCHING})), st.binary(max_size=60))
def test_any_bytes(channel: grpc.Channel, method: str, request: bytes) -> None:
    require_proper(channel, method, request)


def test_and_it_still_works(fuzzed: InThread, channel: grpc.Channel) -> None:
    request = pb.TeachRequest(question="After all?", answer="Yes")
    require_proper(channel, "/continual.v1.MemoryService/Teach", request.SerializeToString())
    assert "After all?" in fuzzed.parts.stored_questions()
