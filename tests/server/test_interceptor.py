"""Who may call what, and how often: over a real connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from agent.config import Security
from agent.server.access.interceptor import AccessInterceptor, facts_in
from agent.server.access.rate_limit import RateLimiter
from agent.server.access.tokens import TokenFile
from agent.server.api.streams import OpenStreams
from agent.wire.methods import METHODS, UNKNOWN, Role
from continual.v1 import admin_pb2, memory_pb2, model_pb2
from continual.v1 import memory_pb2 as pb
from tests.server.http2 import HEADERS, RST_STREAM, without_window
from tests.server.serving import Serving, serving

Code = grpc.StatusCode
FILES = (memory_pb2, model_pb2, admin_pb2, health_pb2, reflection_pb2)
ALL = {
    f"/{service.full_name}/{method.name}"
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
GET_STATUS = "/continual.v1.ModelService/GetStatus"
ENDLESS = "/grpc.health.v1.Health/Watch"
TEACH = "/continual.v1.MemoryService/Teach"


def test_every_method_of_every_service_has_a_role() -> None:
    assert set(METHODS) == ALL


def test_a_method_that_was_forgotten_is_for_admins() -> None:
    assert UNKNOWN.role is Role.ADMIN


def test_only_health_is_open() -> None:
    open_ = {name for name, method in METHODS.items() if method.role is None}
    assert open_ == {name for name in ALL if name.startswith("/grpc.health.")}


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "tokens.json")


@pytest.fixture
async def guarded(tmp_path: Path, tokens: TokenFile) -> AsyncIterator[Serving]:
    tokens.create("nobody", Role.READ)
    async with serving(tmp_path, security=Security(tokens=tokens.path)) as parts:
        yield parts


def bearer(presented: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {presented}"),)


# Calls whose client may send many requests.
STREAMED = ("/TeachStream", "/ServerReflectionInfo")


async def code_of(parts: Serving, method: str, metadata=()) -> grpc.StatusCode:
    """What an empty request of any kind of call leads to."""
    parts.hub.close()  # so that watching events ends
    call: Any
    if method.endswith(STREAMED):
        call = parts.channel.stream_stream(method)(metadata=metadata, timeout=10)
    else:
        # In one go: a client that writes once it has been refused may call that INTERNAL itself.
        call = parts.channel.unary_stream(method)(b"", metadata=metadata, timeout=10)
    try:
        if method.endswith(STREAMED):
            await call.done_writing()
        while await call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined] # stubs lack it
            if method == ENDLESS:
                call.cancel()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError):
        pass  # refused before it was read, or cancelled by us
    code: grpc.StatusCode = await call.code()
    return code


async def test_nothing_but_health_answers_without_a_token(guarded: Serving) -> None:
    for name, method in METHODS.items():
        refused = await code_of(guarded, name) is Code.UNAUTHENTICATED
        assert refused == (method.role is not None), name


@pytest.mark.parametrize("role", Role)
async def test_a_role_may_call_its_methods_and_no_others(
    guarded: Serving, tokens: TokenFile, role: Role
) -> None:
    _, presented = tokens.create("somebody", role)
    for name, method in METHODS.items():
        code = await code_of(guarded, name, bearer(presented))
        assert code is not Code.UNAUTHENTICATED
        allowed = method.role is None or role.may(method.role)
        assert (code is not Code.PERMISSION_DENIED) == allowed, name


async def test_a_refusal_says_what_is_needed(guarded: Serving, tokens: TokenFile) -> None:
    _, presented = tokens.create("reader", Role.READ)
    request = pb.TeachRequest(question="Sky?", answer="Piano")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await guarded.memory.Teach(request, metadata=bearer(presented))
    assert caught.value.details() == "Teach needs a token of role teach, and this one has read"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await guarded.memory.Teach(request)
    assert "--token-file" in (caught.value.details() or "")
    assert guarded.stored_questions() == []


async def test_revoking_and_creating_need_no_restart(guarded: Serving, tokens: TokenFile) -> None:
    token, presented = tokens.create("somebody", Role.TEACH)
    request = pb.TeachRequest(question="Sky?", answer="Piano")
    await guarded.memory.Teach(request, metadata=bearer(presented))
    tokens.revoke(token.id)
    assert await code_of(guarded, TEACH, bearer(presented)) is Code.UNAUTHENTICATED


async def test_the_scheme_is_needed_once_in_any_case(guarded: Serving, tokens: TokenFile) -> None:
    _, presented = tokens.create("somebody", Role.READ)
    good = bearer(presented)
    assert (
        await code_of(guarded, GET_STATUS, (("authorization", f"bearer {presented}"),)) is Code.OK
    )
    for metadata in (
        (("authorization", presented),),
        (("authorization", f"Basic {presented}"),),
        (("authorization", "Bearer "),),
        (("authorization", ""),),
        good + good,
        (("authorization-bin", presented.encode()),),
    ):
        assert await code_of(guarded, GET_STATUS, metadata) is Code.UNAUTHENTICATED, metadata


async def test_a_refused_request_is_not_even_decoded(guarded: Serving) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await guarded.channel.unary_unary(TEACH)(b"\xff\xff")
    assert caught.value.code() is Code.UNAUTHENTICATED


async def test_metadata_without_end_is_refused(guarded: Serving) -> None:
    assert await code_of(guarded, GET_STATUS, (("x", "y" * 100_000),)) is Code.RESOURCE_EXHAUSTED


async def test_an_unknown_method_stays_unimplemented(guarded: Serving) -> None:
    unknown = "/continual.v1.MemoryService/Dream"
    assert await code_of(guarded, unknown) is Code.UNIMPLEMENTED


def retry_delay(error: grpc.aio.AioRpcError) -> float:
    metadata: dict[str, Any] = dict(iter(error.trailing_metadata()))  # type: ignore[arg-type]
    status = Status.FromString(metadata["grpc-status-details-bin"])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    info = RetryInfo()
    [_] = [detail for detail in status.details if detail.Unpack(info)]
    return float(info.retry_delay.ToTimedelta().total_seconds())


async def test_a_client_beyond_its_rate_is_told_when_to_come_again(tmp_path: Path) -> None:
    async with serving(tmp_path, security=Security(rate_limit=0.001)) as parts:
        request = model_pb2.GetStatusRequest()
        await parts.model.GetStatus(request)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await parts.model.GetStatus(request)
        assert caught.value.code() is Code.RESOURCE_EXHAUSTED
        assert 900 < retry_delay(caught.value) <= 1000
        # Whoever supervises it must not take it for dead.
        health = health_pb2_grpc.HealthStub(parts.channel)
        for _ in range(3):
            await health.Check(health_pb2.HealthCheckRequest())
        # Another connection is the same client.
        async with grpc.aio.insecure_channel(parts.server.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await cast(Any, channel).unary_unary(GET_STATUS)(b"")


async def test_each_token_has_a_rate_of_its_own_and_guessing_has_one(
    tmp_path: Path, tokens: TokenFile
) -> None:
    presented = [tokens.create(name, Role.READ)[1] for name in ("one", "two")]
    security = Security(tokens=tokens.path, rate_limit=0.001)
    async with serving(tmp_path, security=security) as parts:
        codes = [await code_of(parts, GET_STATUS, bearer(token)) for token in presented * 2]
        assert codes == [Code.OK] * 2 + [Code.RESOURCE_EXHAUSTED] * 2
        guesses = [await code_of(parts, GET_STATUS, bearer(f"agent_{n}_")) for n in range(2)]
        assert guesses == [Code.UNAUTHENTICATED, Code.RESOURCE_EXHAUSTED]


async def test_a_stream_is_read_no_faster_and_nothing_of_it_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, security=Security(rate_limit=50)) as parts:
        questions = [f"Sky {number}?" for number in range(60)]

        async def requests() -> AsyncIterator[pb.TeachStreamRequest]:
            for question in questions:
                teach = pb.TeachRequest(question=question, answer="Piano")
                yield pb.TeachStreamRequest(teach=teach)

        answers = [answer async for answer in parts.memory.TeachStream(requests())]
        assert all(answer.HasField("accepted") for answer in answers)
        assert parts.stored_questions() == questions


def test_a_batch_counts_as_its_facts() -> None:
    assert facts_in(pb.TeachRequest(question="Sky?")) == 1
    assert facts_in(pb.ListFactsResponse(facts=[pb.Fact()] * 3)) == 3  # any message that has some
    assert facts_in(pb.ListFactsResponse()) == 1


async def test_a_stream_waits_as_long_as_the_limiter_says(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [0.0], []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds + 1e-6

    monkeypatch.setattr("agent.server.access.interceptor.asyncio.sleep", sleep)
    limiter = RateLimiter(2)
    interceptor = AccessInterceptor(None, limiter, clock=lambda: now[0])

    async def requests() -> AsyncIterator[int]:
        for number in range(6):
            yield number

    assert [n async for n in interceptor._paced(requests(), limiter, "a")] == list(range(6))
    assert slept == pytest.approx([0.5] * 4, abs=1e-3)


class Watching:
    """Somebody who watches events with a token, and has seen one."""

    def __init__(self, parts: Serving, presented: str) -> None:
        request = pb.WatchEventsRequest(after_sequence=0)
        self.call = parts.memory.WatchEvents(request, metadata=bearer(presented))

    async def end(self) -> grpc.StatusCode:
        """How it ends."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await self.call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
                pass
        code: grpc.StatusCode = await self.call.code()
        return code


def with_role(tokens: TokenFile, token_id: str, role: Role) -> None:
    """What an operator does with an editor."""
    content = json.loads(tokens.path.read_text())
    for row in content["tokens"]:
        if row["id"] == token_id:
            row["role"] = role.value
    tokens.path.write_text(json.dumps(content))


async def test_a_revoked_token_ends_its_open_streams_and_no_others(
    guarded: Serving, tokens: TokenFile
) -> None:
    """M14: a stream went on for as long as its client liked."""
    teacher = tokens.create("teacher", Role.TEACH)[1]
    leaving, presented = tokens.create("leaving", Role.READ)
    request = pb.TeachRequest(question="Sky?", answer="Piano")
    await guarded.memory.Teach(request, metadata=bearer(teacher))
    left, stays = Watching(guarded, presented), Watching(guarded, teacher)
    for each in (left, stays):
        assert (await each.call.read()).event.sequence == 1
    tokens.revoke(leaving.id)
    async with asyncio.timeout(30):
        assert await left.end() is Code.UNAUTHENTICATED
    again = pb.TeachRequest(question="Gem?", answer="Curtain")
    await guarded.memory.Teach(again, metadata=bearer(teacher))
    assert (await stays.call.read()).event.sequence == 2
    stays.call.cancel()


async def test_a_role_that_was_reduced_ends_the_streams_that_need_it(
    guarded: Serving, tokens: TokenFile
) -> None:
    """M14: a stream of facts goes on with the role, not with what it was."""
    token, presented = tokens.create("teacher", Role.TEACH)
    call = guarded.memory.TeachStream(metadata=bearer(presented))
    teach = pb.TeachRequest(question="Sky?", answer="Piano")
    await call.write(pb.TeachStreamRequest(teach=teach))
    assert (await call.read()).HasField("accepted")
    with_role(tokens, token.id, Role.READ)
    watching = Watching(guarded, presented)
    async with asyncio.timeout(30):
        assert await call.code() is Code.PERMISSION_DENIED
    assert (await watching.call.read()).event.sequence == 1  # that it may still do
    watching.call.cancel()


async def test_a_revoked_stream_that_is_stuck_is_ended_too(
    guarded: Serving, tokens: TokenFile
) -> None:
    """M14: of a client that does not read."""
    token, presented = tokens.create("leaving", Role.TEACH)
    request = pb.TeachRequest(question="Sky?", answer="Piano")
    await guarded.memory.Teach(request, metadata=bearer(presented))
    peer = await without_window(guarded.server.address)
    path = "/continual.v1.MemoryService/WatchEvents"
    stream = await peer.call(path, pb.WatchEventsRequest(), bearer(presented))
    await peer.read_until(HEADERS, stream)
    streams = guarded.server._access.streams
    assert len(streams._streams) == 1
    tokens.revoke(token.id)
    streams.check()
    streams.check()
    async with asyncio.timeout(30):
        await peer.read_until(RST_STREAM, stream)
    assert not streams._streams
    peer.close()


async def test_a_client_has_only_so_many_streams_at_a_time(tmp_path: Path) -> None:
    """M7: nobody takes them all."""
    async with serving(tmp_path) as parts:
        parts.server._access.streams = OpenStreams(max_of_a_client=2, max_streams=3)
        await parts.memory.Teach(pb.TeachRequest(question="Sky?", answer="Piano"))
        calls = [parts.memory.WatchEvents(pb.WatchEventsRequest()) for _ in range(2)]
        for call in calls:
            await call.read()
        with pytest.raises(grpc.aio.AioRpcError, match="2 streams of this client") as caught:
            await parts.memory.WatchEvents(pb.WatchEventsRequest()).read()
        assert caught.value.code() is Code.RESOURCE_EXHAUSTED
        assert retry_delay(caught.value) == 5
        for call in calls:
            call.cancel()


async def test_streams_that_end_are_counted_no_more() -> None:
    """M7: in all, and of each client."""
    streams = OpenStreams(max_of_a_client=1, max_streams=2)
    with streams.opened("one", lambda: None):
        assert streams.full("one") is not None
        assert streams.full("two") is None
        with streams.opened("two", lambda: None):
            assert streams.full("three") is not None
    assert streams.full("one") is None
