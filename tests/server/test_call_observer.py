"""The interceptor that times calls: which are counted, and under which code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agent.server.api.call_observer import ObservingInterceptor
from agent.server.telemetry.tracing import NO_TRACING
from continual.v1 import memory_pb2, model_pb2
from tests.server.serving import Serving, serving


class Called:
    """The calls that have ended."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self._more = asyncio.Event()

    def __call__(self, method: str, code: str, seconds: float) -> None:
        assert seconds >= 0
        self.calls.append((method, code))
        self._more.set()

    async def until(self, count: int) -> list[tuple[str, str]]:
        """An answer may be there before its call is counted."""
        async with asyncio.timeout(10):
            while len(self.calls) < count:
                self._more.clear()
                await self._more.wait()
        return self.calls


@pytest.fixture
def called() -> Called:
    return Called()


@pytest.fixture
async def served(tmp_path: Path, called: Called) -> AsyncIterator[Serving]:
    interceptor = ObservingInterceptor(called, NO_TRACING)
    async with serving(tmp_path, interceptors=[interceptor]) as parts:
        yield parts


async def test_each_call_is_counted_by_method_and_code(served: Serving, called: Called) -> None:
    await served.memory.Teach(memory_pb2.TeachRequest(question="Sky?", answer="Piano"))
    with pytest.raises(grpc.aio.AioRpcError):
        await served.memory.GetFact(memory_pb2.GetFactRequest(fact_id="none"))
    async for _ in served.model.Ask(model_pb2.AskRequest(question="Sky?")):
        pass
    with pytest.raises(grpc.aio.AioRpcError):
        await served.model.Ask(model_pb2.AskRequest(question="")).read()
    assert await called.until(4) == [
        ("MemoryService/Teach", "OK"),
        ("MemoryService/GetFact", "NOT_FOUND"),
        ("ModelService/Ask", "OK"),
        ("ModelService/Ask", "INVALID_ARGUMENT"),
    ]


async def test_a_stream_that_is_left_was_cancelled(served: Serving, called: Called) -> None:
    watching = served.memory.WatchEvents(memory_pb2.WatchEventsRequest(after_sequence=0))
    await served.memory.Teach(memory_pb2.TeachRequest(question="Sky?", answer="Piano"))
    await watching.read()
    watching.cancel()
    assert ("MemoryService/WatchEvents", "CANCELLED") in await called.until(2)


async def test_an_unexpected_error_is_counted_as_clients_see_it(
    served: Serving, called: Called
) -> None:
    assert served.view.learner is not None
    served.view.learner.error = ZeroDivisionError("oh")
    with pytest.raises(grpc.aio.AioRpcError):
        await served.model.Score(model_pb2.ScoreRequest(question="Sky?", answer="Piano"))
    assert await called.until(1) == [("ModelService/Score", "INTERNAL")]


class Refusing(grpc.aio.ServerInterceptor):  # type: ignore[type-arg] # only in stubs
    """Refuses every call by a handler that is no generator."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        async def refuse(requests: object, context: Any) -> None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")

        return grpc.stream_stream_rpc_method_handler(refuse)


async def test_a_call_that_another_interceptor_refuses_is_counted(
    tmp_path: Path, called: Called
) -> None:
    interceptors = [ObservingInterceptor(called, NO_TRACING), Refusing()]
    async with serving(tmp_path, interceptors=interceptors) as parts:
        for call in (
            parts.memory.Teach(memory_pb2.TeachRequest(question="Sky?", answer="Piano")),
            parts.model.Ask(model_pb2.AskRequest(question="Sky?")).read(),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match="who are you"):
                await call
        # A call is counted once its handler has ended, which may be after the next has.
        assert sorted(await called.until(2)) == [
            ("MemoryService/Teach", "UNAUTHENTICATED"),
            ("ModelService/Ask", "UNAUTHENTICATED"),
        ]


async def test_names_that_clients_make_up_and_health_are_not_counted(
    served: Serving, called: Called
) -> None:
    unknown: Any = served.channel.unary_unary("/continual.v1.MemoryService/Made" + "Up")
    with pytest.raises(grpc.aio.AioRpcError):
        await unknown(b"")
    health: Any = health_pb2_grpc.HealthStub(served.channel)
    await health.Check(health_pb2.HealthCheckRequest())
    await served.model.GetStatus(model_pb2.GetStatusRequest())
    assert await called.until(1) == [("ModelService/GetStatus", "OK")]
